//! The calls of `wasi:http` and `wasi:io` by which a guest makes its host keep something, each with a bound or an
//! entry in the partition's account. They take the place of the stock ones, which they call.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource};
use wasmtime_wasi::p2::bindings::io::poll::Host as _;
use wasmtime_wasi::p2::{DynOutputStream, DynPollable};
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::bindings::http::types::{
    HeaderError, Host as _, HostFields as _, HostOutgoingBody as _, HostOutgoingRequest as _, Method,
};
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::HostOutgoingRequest;
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView as _};

use super::{GuestState, unsent};
use crate::Trap;

/// The instances in which these stand, as the stock crates name them.
const HTTP_TYPES: &str = "wasi:http/types@0.2.12";
const IO_POLL: &str = "wasi:io/poll@0.2.12";

/// Longest method, authority and path of an outgoing request. Longer ones are refused as malformed.
const MAX_METHOD_BYTES: usize = 64;
const MAX_AUTHORITY_BYTES: usize = 512;
const MAX_PATH_BYTES: usize = 8 << 10;
/// Most handles in one call of `poll`; a guest has no more, but it may repeat them.
const MAX_POLLED: usize = 4 * super::state::MAX_RESOURCES;

type Store<'a> = StoreContextMut<'a, GuestState>;
type Fields = Resource<FieldMap>;
type FieldsResult<T> = wasmtime::Result<(Result<T, HeaderError>,)>;

/// Puts them into the linker, which has the stock ones.
pub(super) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(HTTP_TYPES)?;
    add_fields(&mut types)?;
    add_requests(&mut types)?;
    types.func_wrap("[method]outgoing-body.write", |mut store: Store<'_>, (body,)| {
        Ok((write(store.data_mut(), body)?,))
    })?;
    linker.instance(IO_POLL)?.func_wrap_async(
        "poll",
        |mut store: Store<'_>, (handles,): (Vec<Resource<DynPollable>>,)| {
            Box::new(async move {
                if handles.len() > MAX_POLLED {
                    return Err(Trap::Argument { what: "handles to poll", limit: MAX_POLLED }.into());
                }
                Ok((store.data_mut().http().table.poll(handles).await?,))
            })
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn add_fields(types: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    types.func_wrap(
        "[static]fields.from-list",
        |mut store: Store<'_>, (list,): (Vec<(String, Vec<u8>)>,)| -> FieldsResult<Fields> {
            let (count, bytes) =
                (list.len(), list.iter().map(|(name, value)| name.len() + value.len()).sum());
            keep_fields(store.data_mut(), count, bytes, |http| http.from_list(list))
        },
    )?;
    types.func_wrap(
        "[method]fields.set",
        |mut store: Store<'_>, (fields, name, values): (Fields, String, Vec<Vec<u8>>)| -> FieldsResult<()> {
            let bytes = name.len() + values.iter().map(Vec::len).sum::<usize>();
            keep_fields(store.data_mut(), values.len(), bytes, |http| http.set(fields, name, values))
        },
    )?;
    types.func_wrap(
        "[method]fields.append",
        |mut store: Store<'_>, (fields, name, value): (Fields, String, Vec<u8>)| -> FieldsResult<()> {
            let bytes = name.len() + value.len();
            keep_fields(store.data_mut(), 1, bytes, |http| http.append(fields, name, value))
        },
    )?;
    types.func_wrap("[method]fields.clone", |mut store: Store<'_>, (fields,): (Fields,)| {
        // A copy is made at its first change, as large as the whole.
        let state = store.data_mut();
        let whole = state.http().table.get(&fields)?;
        let (count, bytes) =
            (whole.len(), whole.iter().map(|(name, value)| name.as_str().len() + value.len()).sum());
        state.note_fields(count, bytes)?;
        Ok((state.http().clone(fields)?,))
    })
}

/// Does what may keep so many fields more. What does not fit into a map at all is not kept.
fn keep_fields<T>(
    state: &mut GuestState,
    count: usize,
    bytes: usize,
    act: impl FnOnce(&mut WasiHttpCtxView<'_>) -> Result<T, wasmtime_wasi_http::p2::HeaderError>,
) -> FieldsResult<T> {
    let mut http = state.http();
    match act(&mut http) {
        Ok(done) => {
            state.note_fields(count, bytes)?;
            Ok((Ok(done),))
        }
        Err(error) => Ok((Err(http.convert_header_error(error)?),)),
    }
}

fn add_requests(types: &mut LinkerInstance<'_, GuestState>) -> wasmtime::Result<()> {
    type Request = Resource<HostOutgoingRequest>;
    types.func_wrap(
        "[method]outgoing-request.set-method",
        |mut store: Store<'_>, (request, method): (Request, Method)| {
            let length = if let Method::Other(method) = &method { method.len() } else { 0 };
            keep(store.data_mut(), length, MAX_METHOD_BYTES, |http| http.set_method(request, method))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        |mut store: Store<'_>, (request, path): (Request, Option<String>)| {
            let length = path.as_ref().map_or(0, String::len);
            keep(store.data_mut(), length, MAX_PATH_BYTES, |http| http.set_path_with_query(request, path))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        |mut store: Store<'_>, (request, authority): (Request, Option<String>)| {
            let length = authority.as_ref().map_or(0, String::len);
            keep(store.data_mut(), length, MAX_AUTHORITY_BYTES, |http| http.set_authority(request, authority))
        },
    )
}

/// Does what keeps a text of this length, unless it is longer than the limit.
fn keep(
    state: &mut GuestState,
    length: usize,
    limit: usize,
    act: impl FnOnce(&mut WasiHttpCtxView<'_>) -> wasmtime::Result<Result<(), ()>>,
) -> wasmtime::Result<(Result<(), ()>,)> {
    if length > limit {
        return Ok((Err(()),));
    }
    state.note(length)?;
    Ok((act(&mut state.http())?,))
}

/// The stream of a body, which counts what is written to it.
fn write(
    state: &mut GuestState,
    body: Resource<HostOutgoingBody>,
) -> wasmtime::Result<Result<Resource<DynOutputStream>, ()>> {
    let counter = std::sync::Arc::clone(&state.unsent);
    let mut http = state.http();
    let Ok(stream) = http.write(body)? else { return Ok(Err(())) };
    let slot = http.table.get_mut(&stream)?;
    let inner = std::mem::replace(slot, Box::new(wasmtime_wasi::p2::pipe::ClosedOutputStream));
    *slot = unsent::counted(inner, &counter);
    Ok(Ok(stream))
}
