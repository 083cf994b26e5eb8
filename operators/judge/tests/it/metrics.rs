//! Invented series that look like metrics of real systems, without incidents.
//!
//! Each family has habits of its own that a detector must bear: rounding, floors and ceilings, heavy tails, bursts that
//! are nothing new, jobs by the clock, levels that come and go, uneven times. Nothing is taken from any benchmark's data.

use fastrand::Rng;

use crate::generate::{normal, poisson};

pub(crate) const FAMILIES: [&str; 16] = [
    "cpu", "cpu jobs", "network", "disk", "latency", "requests", "prices", "rides", "machine", "room", "mentions",
    "traffic", "travel", "steps", "regimes", "keys",
];

/// A series without incidents: its rows' times in days, the values, and what they would be without noise.
pub(crate) struct Clean {
    pub(crate) times: Vec<f64>,
    pub(crate) values: Vec<f64>,
    pub(crate) means: Vec<f64>,
}

/// How many rows a family has, and minutes between them.
fn grid(random: &mut Rng, family: &str) -> (usize, f64) {
    match family {
        "prices" => (1_200 + random.usize(0..800), 60.0),
        "rides" => (6_000 + random.usize(0..5_000), 30.0),
        "machine" => (8_000 + random.usize(0..12_000), 5.0),
        "room" => (5_000 + random.usize(0..3_000), 60.0),
        "mentions" => (10_000 + random.usize(0..6_000), 5.0),
        "traffic" | "travel" => (1_100 + random.usize(0..1_900), 5.0),
        "keys" => (2_000 + random.usize(0..3_500), 5.0),
        _ => (4_032, 5.0),
    }
}

/// Minutes since the series' start by row: regular, or with gaps and uneven steps as sensors on roads have them.
fn minutes(random: &mut Rng, family: &str, length: usize, step: f64) -> Vec<f64> {
    let is_uneven = matches!(family, "traffic" | "travel");
    let missing = [0.0, 0.0, 0.002][random.usize(..3)];
    let mut at = 0.0;
    (0..length)
        .map(|_| {
            let now = at;
            at += if is_uneven {
                step * f64::from(1 + random.u8(..100) / 60 + random.u8(..100) / 85)
                    + if random.u16(..300) == 0 { 60.0 * f64::from(random.u8(1..20)) } else { 0.0 }
            } else {
                step * if random.f64() < missing { f64::from(random.u8(2..30)) } else { 1.0 }
            };
            now
        })
        .collect()
}

fn rounded(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}

fn exponential(random: &mut Rng) -> f64 {
    -(1.0 - random.f64()).ln()
}

fn bump(of_day: f64, at: f64, width: f64) -> f64 {
    let off = (of_day - at + 0.5).rem_euclid(1.0) - 0.5;
    (-(off / width).powi(2)).exp()
}

/// The day of people: quiet nights, rising from morning to evening; weekends lower by `weekend`.
fn people(days: f64, phase: f64, weekend: f64) -> f64 {
    let of_day = (days + phase).rem_euclid(1.0);
    let shape = 0.25 + 0.75 * bump(of_day, 0.55, 0.25) + 0.4 * bump(of_day, 0.83, 0.1);
    shape * if (days + phase).rem_euclid(7.0) >= 5.0 { weekend } else { 1.0 }
}

/// What wanders around 0 with standard deviation 1, forgetting by `rho` a step.
struct Wander {
    at: f64,
    rho: f64,
}

impl Wander {
    fn new(rho: f64) -> Wander {
        Wander { at: 0.0, rho }
    }

    fn step(&mut self, random: &mut Rng) -> f64 {
        self.at = self.rho * self.at + (1.0 - self.rho * self.rho).sqrt() * normal(random);
        self.at
    }
}

fn pick(random: &mut Rng, from: &[f64]) -> f64 {
    from[random.usize(..from.len())]
}

/// A clean series of `family`.
pub(crate) fn clean(random: &mut Rng, family: &str, start: f64) -> Clean {
    let (length, step) = grid(random, family);
    let times: Vec<f64> =
        minutes(random, family, length, step).into_iter().map(|minutes| start + minutes / 1_440.0).collect();
    let (values, means) = match family {
        "cpu" | "cpu jobs" | "network" | "disk" | "latency" => machine_metric(random, family, &times),
        "requests" | "rides" | "mentions" | "traffic" | "travel" | "keys" => people_metric(random, family, &times),
        _ => other_metric(random, family, &times),
    };
    let factor = 10_f64.powi(random.i32(-3..6));
    let scaled = |values: Vec<f64>| values.into_iter().map(|value| value * factor).collect();
    Clean { times, values: scaled(values), means: scaled(means) }
}

/// Values of servers: little season, rounding, jobs and bursts.
fn machine_metric(random: &mut Rng, family: &str, times: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let base = pick(random, &[0.1, 2.0, 20.0, 45.0, 90.0]);
    let noise = base * pick(random, &[0.01, 0.04, 0.1]);
    let day = base * pick(random, &[0.0, 0.0, 0.15, 0.4]);
    let spikes = pick(random, &[0.0, 0.002, 0.01, 0.03]);
    let job_hours = pick(random, &[0.5, 1.0, 6.0, 24.0]);
    let job_size = base * pick(random, &[0.2, 0.6, 2.0]);
    let digits = random.i32(1..4);
    let idle = random.f64() * 0.6;
    let mut slow = Wander::new(pick(random, &[0.5, 0.9, 0.98]));
    let mut held = 0.0;
    let job_for = random.usize(1..5) as f64 * 5.0 / 1_440.0;
    times
        .iter()
        .map(|days| {
            let in_job = days.rem_euclid(job_hours / 24.0) < job_for;
            let mean = base + day * (days * std::f64::consts::TAU).sin();
            let wander = slow.step(random);
            match family {
                "cpu" => {
                    let spike = if random.f64() < spikes { noise * 4.0 * exponential(random) } else { 0.0 };
                    let value = mean + noise * wander + 0.5 * noise * normal(random) + spike;
                    (rounded(value.clamp(0.0, 100.0), digits), mean)
                }
                "cpu jobs" => {
                    let mean = mean + if in_job { job_size } else { 0.0 };
                    (rounded((mean + noise * wander).clamp(0.0, 100.0), digits), mean)
                }
                "network" => {
                    held *= 0.5;
                    if random.f64() < spikes {
                        held += base * 4.0 * exponential(random);
                    }
                    let job = if in_job { job_size } else { 0.0 };
                    let value = (mean + job) * (0.3 * noise / base * 10.0 * wander).exp() + held;
                    ((value * 1e4).round(), mean * 1e4)
                }
                "disk" => {
                    let is_busy = random.f64() > idle;
                    let value = if is_busy { mean * 100.0 * (0.8 * normal(random)).exp() } else { 0.0 };
                    (value.round(), mean * 100.0)
                }
                _ => {
                    let tail = if random.f64() < spikes { exponential(random) * 2.0 } else { 0.0 };
                    let value = mean * (1.0 + 0.15 * exponential(random) + 0.05 * wander + tail);
                    (rounded(value, digits), mean)
                }
            }
        })
        .unzip()
}

/// Values that follow people's days and weeks.
fn people_metric(random: &mut Rng, family: &str, times: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let weekend = pick(random, &[1.0, 0.85, 0.6]);
    let phase = random.f64();
    let size = pick(random, &[5.0, 30.0, 300.0, 10_000.0]);
    let busy = pick(random, &[0.3, 3.0, 20.0]);
    let wild = pick(random, &[0.1, 0.4, 0.8]);
    let mut slow = Wander::new(0.98);
    let mut quick = Wander::new(0.7);
    let mut excited = 0.0;
    let growth = pick(random, &[0.0, 0.0, 0.004, -0.004]);
    times
        .iter()
        .map(|days| {
            let shape = people(*days, phase, weekend);
            let trend = (growth * (days - times[0])).exp();
            let (a, b) = (slow.step(random), quick.step(random));
            let of_day = (days + phase).rem_euclid(1.0);
            match family {
                "requests" => {
                    let mean = size * shape * trend;
                    (poisson(random, mean * (0.08 * a + 0.03 * b).exp()), mean)
                }
                "rides" => {
                    let mean = 15_000.0 * shape * trend;
                    ((mean * (0.05 * a + 0.03 * b).exp()).round(), mean)
                }
                "mentions" => {
                    // A burst brings more of itself, as shares and replies do.
                    excited *= 0.75;
                    if random.f64() < 0.004 {
                        excited += busy * wild * 8.0 * exponential(random);
                    }
                    let mean = busy * shape;
                    (poisson(random, mean * (0.3 * a + 0.5 * wild * b).exp() + excited), mean)
                }
                "traffic" => {
                    let rush = bump(of_day, 0.35, 0.06) + bump(of_day, 0.72, 0.08);
                    let jam = if random.f64() < 0.01 { 8.0 * exponential(random) } else { 0.0 };
                    let mean = 4.0 + 12.0 * shape * rush;
                    (rounded((mean * (0.35 * b).exp() + jam).max(0.0), 2), mean)
                }
                "travel" => {
                    let rush = bump(of_day, 0.35, 0.05) + bump(of_day, 0.72, 0.07);
                    let slowed = if random.f64() < 0.01 { 400.0 * wild * exponential(random) } else { 0.0 };
                    let mean = 90.0 + 120.0 * wild * shape * rush;
                    ((mean * (0.12 * b).exp() + slowed).round(), mean)
                }
                _ => {
                    let is_on = random.f64() < shape.min(1.0) * 0.7;
                    let mean = shape * 100.0;
                    (if is_on { (mean * (0.7 * b).exp()).round() } else { 0.0 }, mean)
                }
            }
        })
        .unzip()
}

/// Prices, sensors, square waves, levels that come and go.
fn other_metric(random: &mut Rng, family: &str, times: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let wild = pick(random, &[0.1, 0.25, 0.5]);
    let rare = pick(random, &[0.003, 0.01, 0.03]);
    let on_at = random.f64() * 0.5;
    let on_for = 0.2 + 0.3 * random.f64();
    let noise = pick(random, &[0.0, 0.5, 4.0]);
    let levels: Vec<f64> = (0..random.usize(2..4)).map(|_| 20.0 + 60.0 * random.f64()).collect();
    let stays = pick(random, &[0.002, 0.01, 0.05]);
    let form = random.u8(..3);
    let mut level = levels[0];
    let mut slow = Wander::new(pick(random, &[0.995, 0.999]));
    let mut quick = Wander::new(0.8);
    times
        .iter()
        .map(|days| {
            let (a, b) = (slow.step(random), quick.step(random));
            let of_day = days.rem_euclid(1.0);
            match family {
                "prices" => {
                    let spike = if random.f64() < rare { 0.8 * exponential(random) } else { 0.0 };
                    let mean = 0.1 + 0.03 * (days * std::f64::consts::TAU).sin();
                    (rounded(mean * (wild * b + spike).exp(), 4), mean)
                }
                "machine" => {
                    let mean = 85.0 + 3.0 * (days * std::f64::consts::TAU).sin();
                    (rounded(mean + 6.0 * a + 0.7 * b, 4), mean)
                }
                "room" => {
                    let mean = 70.0 + 1.5 * (days * std::f64::consts::TAU).sin();
                    (rounded(mean + 3.0 * a + 0.6 * b, 2), mean)
                }
                "steps" => {
                    let is_on = (on_at..on_at + on_for).contains(&of_day);
                    let mean = match form {
                        0 => 20.0 + if is_on { 60.0 } else { 0.0 },
                        1 => 50.0,
                        _ => 50.0 + 30.0 * ((days / on_for) * std::f64::consts::TAU).sin(),
                    };
                    (mean + noise * normal(random), mean)
                }
                _ => {
                    if random.f64() < stays {
                        level = levels[random.usize(..levels.len())];
                    }
                    (rounded(level + (0.5 + noise) * normal(random), 2), level)
                }
            }
        })
        .unzip()
}
