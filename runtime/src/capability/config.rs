//! `wasi:config`: the deployment's `env`, for guests that were granted to read it.

use std::sync::Arc;

use hvm_types::Environment;

use super::bindings::wasi::config::store;

/// The values of one partition; `None` where it was not granted to read them.
#[derive(Debug, Clone)]
pub(crate) struct Config(pub(crate) Option<Arc<Environment>>);

/// The values as the linker wants them.
pub(crate) struct ConfigView<'a>(pub(crate) &'a Config);

impl ConfigView<'_> {
    fn values(&self) -> Result<&Environment, store::Error> {
        let denied = || store::Error::Upstream("the capability `config` is not granted".to_owned());
        self.0.0.as_deref().ok_or_else(denied)
    }
}

impl store::Host for ConfigView<'_> {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        Ok(self.values().map(|values| values.get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        let all =
            |values: &Environment| values.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        Ok(self.values().map(all))
    }
}
