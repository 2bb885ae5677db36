//! The smallest app: GET / answers `hello`.

use hvm_guest::{Request, Response};

fn handle(request: Request) -> Response {
    match (request.method.as_str(), request.path.as_str()) {
        ("GET" | "HEAD", "/") => Response::text("hello\n"),
        (_, "/") => Response::error(405, "only GET is answered here").with_header("allow", "GET, HEAD"),
        _ => Response::error(404, "there is only /"),
    }
}

hvm_guest::export!(handle);
