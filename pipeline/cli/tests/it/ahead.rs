//! A partition an hour ahead of another: it waits in the log, not in memory, and no window is wrong for it.

use crate::log::{Log, MORNING, SALE, Sale, SaleWriter, expected, files, ledger, live};
use crate::program::{Bench, terminate, wait_until};

const HOUR: i64 = 3_600_000;
/// Records that the partition is ahead with; with the note of each about 96 MiB.
const AHEAD: u64 = 48_000;
const NOTE_BYTES: usize = 2_000;
/// What the program may hold at most while those wait. It holds about 8 MiB in flight, half as much again in queues,
/// RocksDB's buffers and its threads' stacks; the records that wait alone are more than this.
const MEMORY_AT_MOST_KIB: u64 = 90 << 10;

/// A text that can't be compressed well.
fn note(random: &mut fastrand::Rng) -> String {
    (0..NOTE_BYTES).map(|_| random.alphanumeric()).collect()
}

/// The memory that a process has of its own right now, in KiB: what it maps from files isn't counted.
fn anonymous_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_partition_an_hour_ahead_waits_and_its_windows_are_right() {
    let mut bench = Bench::of(&files(), "ahead");
    bench.edit("idle_after_ms = 500", "idle_after_ms = 600000\nalign_within_ms = 60000");
    bench.edit("allowed_lateness_ms = 100000", "allowed_lateness_ms = 0");
    bench.edit("epoch_ms = 200", "epoch_ms = 200\nin_flight_bytes = 8388608");
    let mut log = Log::make(&bench, 2);
    let writer = SaleWriter::register(&bench, SALE, vec![]);
    let mut random = fastrand::Rng::with_seed(3);
    let mut sold = Vec::new();
    let mut sell = |log: &mut Log, partition: i32, number: u64, at: i64, note: &str| {
        let sale = Sale::of(number, at, if partition == 0 { "behind" } else { "ahead" });
        log.send(partition, at, &writer.bytes(&sale, note));
        sold.push(sale);
    };
    // Partition 1 begins beside partition 0 and is then an hour ahead.
    for number in 0..100 {
        sell(&mut log, 0, number, MORNING + number as i64 * 100, "");
        sell(&mut log, 1, number, MORNING + number as i64 * 100, "");
    }
    for number in 100..100 + AHEAD {
        sell(&mut log, 1, number, MORNING + HOUR + number as i64 * 10, &note(&mut random));
    }
    log.flush();

    let mut running = bench.start(&["run", "pipeline.toml"]);
    let waits = |bench: &Bench| {
        let status = bench.status()?;
        let ahead = status.sources[0].partitions.iter().find(|of| of.status.partition == 1)?.status.clone();
        let is_told = ahead.state == "waiting" && ahead.detail.contains("too far ahead");
        (is_told && status.sources[0].held_back_by == Some(format!("{}/0", bench.topic))).then_some(ahead)
    };
    wait_until("the partition ahead waits, and says so", || waits(&bench).is_some());
    let first = waits(&bench).unwrap();
    assert!(first.end_offset - first.next_offset > AHEAD as i64 / 2, "most of it waits in the log: {first:?}");

    // Partition 0 goes on second by second; the other one stands where it stood, and memory with it.
    let mut most_kib = 0;
    for second in 0..8 {
        for number in 0..100 {
            let number = 100 + second * 100 + number;
            sell(&mut log, 0, number, MORNING + number as i64 * 100, "");
        }
        log.flush();
        let behind = 200 + second as i64 * 100;
        wait_until("the partition behind is read", || {
            most_kib = most_kib.max(anonymous_kib(running.id()));
            bench.ask("SELECT sum(consumed) FROM weir_ledger WHERE partition = 0") == behind.to_string()
        });
    }
    let last = waits(&bench).expect("it still waits");
    assert_eq!(last.next_offset, first.next_offset);
    assert!(most_kib <= MEMORY_AT_MOST_KIB, "{most_kib} KiB are held");
    let through = bench.ask("SELECT toUnixTimestamp(complete_through) FROM weir_progress WHERE view = 'by_window'");
    assert!(through.parse::<i64>().unwrap() <= MORNING / 1_000 + 90, "windows closed ahead of partition 0: {through}");

    // It catches up, and the other one goes on.
    for number in 900..1_000 {
        sell(&mut log, 0, number, MORNING + HOUR + 480_000 + number as i64 * 100, "");
    }
    log.flush();
    wait_until("everything is read", || bench.consumed() == 1_100 + AHEAD);
    terminate(&mut running);
    bench.weir(&["run", "pipeline.toml", "--until-end"]).fine();
    let all = 1_100 + AHEAD;
    assert_eq!(live(&bench, "%"), expected(&sold));
    assert_eq!(ledger(&bench), format!("{all}\t{all}\t0\t0\t0\t0\t0"));
    bench.weir(&["verify", "pipeline.toml"]).fine();

    // The same log from its beginning, on one worker, which reads both.
    bench.anew("ahead");
    bench.weir(&["run", "pipeline.toml", "--until-end", "--workers", "1"]).fine();
    assert_eq!(live(&bench, "%"), expected(&sold));
    assert_eq!(ledger(&bench), format!("{all}\t{all}\t0\t0\t0\t0\t0"));
}
