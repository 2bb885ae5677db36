//! A guest whose std stands on WASI, as most toolchains make them: it imports the environment, the filesystem and
//! randomness whether it uses them or not. It finds them there, and empty.

use std::hash::{BuildHasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use hvm_guest::{Request, Response};

fn handle(request: Request) -> Response {
    let text = request.query_param("m").unwrap_or_default();
    let path = request.query_param("path").unwrap_or_else(|| "/etc/hostname".to_owned());
    match request.path.as_str() {
        "/" => Response::text("probe-wasi\n"),
        "/stdout" => {
            println!("{text}");
            Response::status(204)
        }
        "/stderr" => {
            eprintln!("{text}");
            Response::status(204)
        }
        "/panic" => panic!("{text}"),
        "/file/read" => outcome(std::fs::read_to_string(path)),
        "/file/write" => outcome(std::fs::write(path, text).map(|()| "written".to_owned())),
        "/env" => {
            let mut variables: Vec<_> =
                std::env::vars().map(|(key, value)| format!("{key}={value}\n")).collect();
            variables.sort();
            Response::text(variables.concat())
        }
        "/args" => {
            Response::text(std::env::args().map(|argument| format!("{argument}\n")).collect::<String>())
        }
        "/clock" => match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => Response::text(since.as_secs().to_string()),
            Err(error) => Response::error(500, &error.to_string()),
        },
        "/random" => Response::text(RandomState::new().hash_one(0_u8).to_string()),
        _ => Response::error(404, "there is no such probe"),
    }
}

/// 200 with what was read, 403 with why it was not.
fn outcome(result: std::io::Result<String>) -> Response {
    match result {
        Ok(text) => Response::text(text),
        Err(error) => Response::error(403, &format!("{:?}: {error}", error.kind())),
    }
}

hvm_guest::export!(handle);
