//! `weir init`: a commented pipeline to start from.

use std::path::Path;

use crate::Outcome;
use crate::out::say;
use crate::paint;

/// The files of a new pipeline.
pub(crate) const FILES: &[(&str, &str)] = &[
    ("pipeline.toml", include_str!("../../template/pipeline.toml")),
    ("event.avsc", include_str!("../../../../replay/presets/storefront.avsc")),
    ("views/revenue_by_minute.sql", include_str!("../../template/views/revenue_by_minute.sql")),
    ("views/visitors_by_hour.sql", include_str!("../../template/views/visitors_by_hour.sql")),
    ("views/purchases_by_five_minutes.sql", include_str!("../../template/views/purchases_by_five_minutes.sql")),
    ("scenarios/purchases_are_counted.toml", include_str!("../../template/scenarios/purchases_are_counted.toml")),
    ("scenarios/late_purchases.toml", include_str!("../../template/scenarios/late_purchases.toml")),
    ("scenarios/broken_records.toml", include_str!("../../template/scenarios/broken_records.toml")),
    ("scenarios/bad_release.toml", include_str!("../../template/scenarios/bad_release.toml")),
];

/// Writes the files into `folder`, which must be empty or absent.
pub(crate) fn run(folder: &Path) -> Outcome {
    let is_used = std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if is_used {
        return Outcome::refused(
            format!("{} is not empty", folder.display()),
            "name a folder that is empty or doesn't exist: nothing is overwritten",
        );
    }
    if let Err(error) = write(folder) {
        return Outcome::refused(format!("{}: {error}", folder.display()), "name a folder that can be written");
    }
    for (name, _) in FILES {
        say!("{} {}", paint::good("wrote"), folder.join(name).display());
    }
    let file = folder.join("pipeline.toml");
    say!("\nNext: see what it does, without any part around it, with\n  weir test {}", file.display());
    say!("then change `brokers`, `url` and `topics`, and\n  weir check {}", file.display());
    Outcome::done()
}

/// Writes the files of a new pipeline below `folder`, over what is there.
pub(crate) fn write(folder: &Path) -> std::io::Result<()> {
    for of in ["views", "scenarios"] {
        std::fs::create_dir_all(folder.join(of))?;
    }
    FILES.iter().try_for_each(|(name, text)| std::fs::write(folder.join(name), text))
}
