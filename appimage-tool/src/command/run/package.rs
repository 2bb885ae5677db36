//! Which package runs, and with what: everything that it requests, and nothing that it does not.

use hvm_appimage::{Image, check_component};
use hvm_runtime::{Module, PartitionSpec};
use hvm_types::{Capability, Environment, Grants, PackageName, ReplicaId, StateSchema};

use crate::arguments::Run;
use crate::failure::Failure;

/// The package that was chosen.
pub(super) struct Package {
    pub(super) name: PackageName,
    /// The one partition: `app/package/0`.
    pub(super) id: ReplicaId,
    schema: StateSchema,
    grants: Grants,
    env: Environment,
}

/// Chooses the package and checks that it can be run.
pub(super) fn choose(image: &Image, arguments: &Run) -> Result<Package, Failure> {
    let config = image.config();
    let packages = &config.packages;
    let name = match &arguments.package {
        Some(name) => name,
        None if packages.len() == 1 => packages.keys().next().expect("an image has a package"),
        None => {
            let names: Vec<_> = packages.keys().map(ToString::to_string).collect();
            return Err(Failure::new(format!("the image has several packages: {}", names.join(", ")))
                .hint("choose one with --package"));
        }
    };
    // Reading the component says which packages there are, where this is none.
    let component = image.component(name)?;
    let requested = &packages[name].capabilities;
    check_component(&component, requested)
        .map_err(|error| Failure::new(format!("package {name} cannot be run: {error}")))?;
    let requests = |capability| requested.contains(&capability);
    if requests(Capability::OutgoingHttp) && arguments.http.is_empty() {
        return Err(Failure::new(format!("package {name} requests the capability outgoing-http"))
            .hint("name the origins that it may call, for example --http https://rates.example"));
    }
    let grants = Grants {
        keyvalue: if requests(Capability::Keyvalue) { vec!["default".to_owned()] } else { Vec::new() },
        config: requests(Capability::Config),
        logging: requests(Capability::Logging),
        http: arguments.http.clone(),
        http_in_commands: arguments.http_in_commands,
    };
    let same = "an app's and a package's names are DNS labels, as a deployment's and a group's are";
    let id = ReplicaId {
        deployment: config.app.as_str().parse().expect(same),
        group: name.as_str().parse().expect(same),
        index: 0,
    };
    let env = arguments.env.iter().cloned().collect();
    Ok(Package { name: name.clone(), id, schema: config.schema(), grants, env })
}

impl Package {
    /// What the HVM is asked to run. It is stateful where it has a store.
    pub(super) fn spec(&self, module: Module) -> PartitionSpec {
        let mut spec = PartitionSpec::new(self.id.clone(), module);
        spec.stateful = !self.grants.keyvalue.is_empty();
        spec.schema = self.schema;
        spec.grants = self.grants.clone();
        spec.env = self.env.clone();
        spec
    }
}
