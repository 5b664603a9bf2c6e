//! Damaged segments are kept for whoever wants to look, but not for ever.

use std::fs;
use std::io;
use std::path::Path;

const FOLDER: &str = "quarantine";

/// Segments kept; the oldest go first. With 4 MiB each it is bounded at 64 MiB.
const KEPT: usize = 16;

/// Moves a segment out of the spool's way.
pub(super) fn take(spool: &Path, segment: &Path) -> io::Result<()> {
    let folder = spool.join(FOLDER);
    fs::create_dir_all(&folder)?;
    let name = segment.file_name().unwrap_or_default();
    fs::rename(segment, folder.join(name))?;
    let mut kept = fs::read_dir(&folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    // Names sort by time.
    kept.sort();
    let surplus = kept.len().saturating_sub(KEPT);
    kept.iter().take(surplus).try_for_each(fs::remove_file)
}
