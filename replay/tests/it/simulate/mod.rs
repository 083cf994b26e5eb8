//! Scenarios through the whole engine, without any part around it.

mod faults;
mod steps;
mod updates;

use std::path::{Path, PathBuf};

use weir_pipeline::config::Pipeline;
use weir_pipeline::config::load::load;
use weir_pipeline::custom::OperatorRegistry;
use weir_pipeline::error::Error;
use weir_replay::simulate::{Options, Played, Simulation};

/// What most scenarios begin with.
const DEFAULTS: &str = r#"
[defaults]
tenant = "alpine"
type = "purchase"
sdk = "web"
sdk_version = "3.2.0"
app_version = "2026.9"
"#;

/// The shop's pipeline in a folder of its own.
struct Shop {
    folder: tempfile::TempDir,
    pipeline: Pipeline,
}

impl Shop {
    fn new() -> Shop {
        let folder = tempfile::tempdir().unwrap();
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/simulate");
        for name in ["pipeline.toml", "by_minute.sql"] {
            std::fs::copy(files.join(name), folder.path().join(name)).unwrap();
        }
        std::fs::copy(files.join("../../../presets/storefront.avsc"), folder.path().join("event.avsc")).unwrap();
        let pipeline = load(&folder.path().join("pipeline.toml")).unwrap();
        Shop { folder, pipeline }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("scenarios/case.toml")
    }

    fn play_with(&self, text: &str, options: Options) -> Result<Played, Error> {
        let operators = OperatorRegistry::default();
        let simulation = Simulation { file: "pipeline.toml", pipeline: &self.pipeline, operators: &operators, options };
        simulation.play(&self.path(), text)
    }

    /// Plays a scenario that can be played.
    #[track_caller]
    fn play(&self, text: &str) -> Played {
        self.play_with(text, Options::default()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What differs, as it is told.
    #[track_caller]
    fn told(&self, text: &str) -> String {
        let played = self.play(text);
        let told = played.differences.iter().map(|(when, difference)| format!("{when}: {}", difference.text()));
        told.collect()
    }

    /// What is wrong with a scenario, without its folder.
    #[track_caller]
    fn refused(&self, text: &str) -> String {
        let error = self.play_with(text, Options::default()).expect_err("it can be played");
        assert_eq!(error.exit_code(), 2, "{error}");
        error.to_string().replace(&format!("{}/", self.folder.path().join("scenarios").display()), "")
    }
}
