//! The page's files, compiled in: nothing is read from disk and nothing fetched from elsewhere.

use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

macro_rules! assets {
    ($($path:literal => $kind:literal,)*) => {
        /// Path below `/console/`, media type, content.
        const ASSETS: &[(&str, &str, &str)] = &[
            $(($path, $kind, include_str!(concat!("../../../dashboards/console/", $path))),)*
        ];
    };
}

assets! {
    "index.html" => "text/html; charset=utf-8",
    "style.css" => "text/css; charset=utf-8",
    "icon.svg" => "image/svg+xml",
    "vendor/uPlot.iife.min.js" => "text/javascript; charset=utf-8",
    "vendor/uPlot.min.css" => "text/css; charset=utf-8",
    "app.js" => "text/javascript; charset=utf-8",
    "theme.js" => "text/javascript; charset=utf-8",
    "dom.js" => "text/javascript; charset=utf-8",
    "format.js" => "text/javascript; charset=utf-8",
    "live.js" => "text/javascript; charset=utf-8",
    "route.js" => "text/javascript; charset=utf-8",
    "complete.js" => "text/javascript; charset=utf-8",
    "chart.js" => "text/javascript; charset=utf-8",
    "analyst.js" => "text/javascript; charset=utf-8",
    "engineer.js" => "text/javascript; charset=utf-8",
    "flow.js" => "text/javascript; charset=utf-8",
    "sdk.js" => "text/javascript; charset=utf-8",
}

/// `/`.
pub(super) async fn index(headers: HeaderMap) -> Response {
    answer("index.html", &headers)
}

/// `/console/...`.
pub(super) async fn file(Path(path): Path<String>, headers: HeaderMap) -> Response {
    answer(&path, &headers)
}

fn answer(path: &str, headers: &HeaderMap) -> Response {
    let Some((_, kind, content)) = ASSETS.iter().find(|(of, ..)| *of == path) else {
        return (StatusCode::NOT_FOUND, "no such file\n").into_response();
    };
    let tag = format!("\"{:016x}\"", xxh3_64(content.as_bytes()));
    let caching = [(header::ETAG, tag.clone()), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, caching).into_response();
    }
    (caching, [(header::CONTENT_TYPE, *kind)], *content).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_compiled_in_and_names_nothing_elsewhere() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../dashboards/console");
        let mut there = Vec::new();
        for (below, prefix) in [("", ""), ("/vendor", "vendor/")] {
            for entry in std::fs::read_dir(format!("{folder}{below}")).expect("the folder").flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.path().is_file() && !name.ends_with(".txt") && !name.ends_with(".md") {
                    there.push(format!("{prefix}{name}"));
                }
            }
        }
        let mut compiled: Vec<String> = ASSETS.iter().map(|(path, ..)| (*path).to_owned()).collect();
        there.sort();
        compiled.sort();
        assert_eq!(there, compiled);
        for (path, _, content) in ASSETS.iter().filter(|(path, ..)| !path.starts_with("vendor/")) {
            let elsewhere = content.replace("http://www.w3.org/", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{path}");
            for risky in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
                assert!(!content.contains(risky), "{path}: {risky}");
            }
        }
    }
}
