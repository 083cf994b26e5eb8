//! The scripts of the parts, carried in the binary.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{PartsError, file};

const SCRIPTS: &[(&str, &str)] = &[
    ("kafka.sh", include_str!("../../parts/kafka.sh")),
    ("kafka-pom.xml", include_str!("../../parts/kafka-pom.xml")),
    ("log4j2.properties", include_str!("../../parts/log4j2.properties")),
    ("registry.sh", include_str!("../../parts/registry.sh")),
    ("clickhouse.sh", include_str!("../../parts/clickhouse.sh")),
    ("s3.sh", include_str!("../../parts/s3.sh")),
];

/// `${XDG_CACHE_HOME:-$HOME/.cache}/weir/parts`.
fn cache() -> PathBuf {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = of("XDG_CACHE_HOME").unwrap_or_else(|| of("HOME").unwrap_or_else(std::env::temp_dir).join(".cache"));
    cache.join("weir/parts")
}

/// The folder that holds this binary's scripts, written when it isn't there.
pub(super) fn write_out() -> Result<PathBuf, PartsError> {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for byte in SCRIPTS.iter().flat_map(|(_, text)| text.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let folder = cache().join(format!("scripts-{hash:016x}"));
    if folder.is_dir() {
        return Ok(folder);
    }
    // Written beside it and renamed: another thread or process must never see half of it.
    let scratch = cache().join(format!("scripts-{hash:016x}.{:016x}", fastrand::u64(..)));
    std::fs::create_dir_all(&scratch).map_err(file(&scratch))?;
    for (name, text) in SCRIPTS {
        let path = scratch.join(name);
        std::fs::write(&path, text).map_err(file(&path))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(file(&path))?;
    }
    if std::fs::rename(&scratch, &folder).is_err() && !folder.is_dir() {
        return Err(PartsError::File { path: folder, source: std::io::Error::other("cannot be made") });
    }
    let _ = std::fs::remove_dir_all(&scratch);
    Ok(folder)
}
