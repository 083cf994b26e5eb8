//! A full disk under the state: the program ends with what is wrong and what to do, and goes on where it was when there
//! is space again.
//!
//! The disk is a small one in memory, mounted in namespaces of a helper process, which needs no rights and vanishes with
//! it. Where the system allows neither user namespaces nor mounting, the test says that it is skipped; in continuous
//! integration (`CI=true`) it fails instead.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::log::{Log, MORNING, SALE, Sale, SaleWriter, expected, files, ledger, live};
use crate::program::{Bench, Done, skipped, wait_until};

/// Holds the namespaces with the small disk until it is dropped.
struct SmallDisk {
    holder: Child,
    /// The mounted folder, as this process can reach it.
    folder: PathBuf,
    with_user: bool,
}

impl SmallDisk {
    /// A disk of `mebibytes`, less than RocksDB sets aside for its log at once, mounted as the bench's state folder.
    fn mount(bench: &Bench, mebibytes: u32) -> Option<SmallDisk> {
        let state = bench.folder.path().join("state");
        std::fs::create_dir_all(&state).unwrap();
        // In a user namespace of its own an ordinary user may mount; where those are forbidden, root may anyway.
        [true, false].into_iter().find_map(|with_user| {
            let mut command = Command::new("unshare");
            if with_user {
                command.args(["--user", "--map-root-user"]);
            }
            command.args(["--mount", "sh", "-c"]);
            command.arg(format!("mount -t tmpfs -o size={mebibytes}m weir \"$0\" && echo mounted && exec cat"));
            command.arg(&state).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut holder = command.spawn().ok()?;
            let mut said = String::new();
            BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
            if said != "mounted\n" {
                holder.wait().unwrap();
                return None;
            }
            let folder = PathBuf::from(format!("/proc/{}/root{}", holder.id(), state.display()));
            Some(SmallDisk { holder, folder, with_user })
        })
    }

    /// A command of the program, run where the small disk is.
    fn command(&self, bench: &Bench, arguments: &[&str]) -> Command {
        let plain = bench.command(arguments);
        let mut command = Command::new("nsenter");
        command.arg("--target").arg(self.holder.id().to_string()).arg("--mount");
        if self.with_user {
            command.args(["--user", "--preserve-credentials"]);
        }
        // Entering moves to the root folder.
        command.args(["--", "sh", "-c", "cd \"$0\" && exec \"$@\""]).arg(bench.folder.path());
        command.arg(plain.get_program()).args(plain.get_args());
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.stdin(Stdio::null());
        command
    }

    /// Writes until nothing more fits.
    fn fill(&self) {
        let mut filler = std::fs::File::create(self.folder.join("filler")).unwrap();
        let error = loop {
            if let Err(error) = filler.write_all(&[7; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        std::fs::remove_file(self.folder.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

#[test]
fn a_full_disk_is_told_and_after_it_nothing_is_lost() {
    let bench = Bench::of(&files(), "disk");
    let Some(disk) = SmallDisk::mount(&bench, 20) else {
        let is_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
        assert!(!is_ci, "neither user namespaces nor mounting are allowed here: this test can't run");
        skipped("neither user namespaces nor mounting are allowed here, so there is no full disk to test");
        return;
    };
    let mut log = Log::make(&bench, 2);
    let writer = SaleWriter::register(&bench, SALE, vec![]);
    let mut sold = Vec::new();
    let mut sell = |log: &mut Log, from: u64, count: u64| {
        for number in from..from + count {
            let at = MORNING + number as i64 * 10;
            let sale = Sale::of(number, at, "shop");
            log.send((number % 2) as i32, at, &writer.bytes(&sale, ""));
            sold.push(sale);
        }
        log.flush();
    };

    sell(&mut log, 0, 20_000);
    let running =
        disk.command(&bench, &["run", "pipeline.toml"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("it runs", || bench.consumed() == 20_000);
    disk.fill();
    sell(&mut log, 20_000, 20_000);
    let ended = Done::of(running.wait_with_output().unwrap());
    println!("{}", ended.err.trim());
    ended.refused(4, &["the disk that holds the state folder", "is full: free space", "resumes from the last commit"]);

    disk.free();
    Done::of(disk.command(&bench, &["run", "pipeline.toml", "--until-end"]).output().unwrap()).fine();
    assert_eq!(live(&bench, "%"), expected(&sold));
    assert_eq!(ledger(&bench), "40000\t40000\t0\t0\t0\t0\t0");
    bench.weir(&["verify", "pipeline.toml"]).fine();
}
