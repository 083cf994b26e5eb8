//! Invented series with labelled incidents, the same ones for the same seed.

use fastrand::Rng;

/// What goes wrong in an invented series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Spike,
    Dip,
    Shift,
    LastingShift,
    Outage,
    Variance,
    Stuck,
    SeasonLost,
    Drift,
    Bursts,
}

pub(crate) const KINDS: [Kind; 10] = [
    Kind::Spike,
    Kind::Dip,
    Kind::Shift,
    Kind::LastingShift,
    Kind::Outage,
    Kind::Variance,
    Kind::Stuck,
    Kind::SeasonLost,
    Kind::Drift,
    Kind::Bursts,
];

/// Sizes in standard deviations of the series' noise.
pub(crate) const SIZES: [f64; 3] = [4.0, 8.0, 16.0];

#[derive(Debug, Clone, Copy)]
pub(crate) struct Incident {
    pub(crate) kind: Kind,
    pub(crate) size: f64,
    pub(crate) from: usize,
    pub(crate) steps: usize,
}

pub(crate) struct Made {
    pub(crate) rows: Vec<(i64, f64)>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) noise: &'static str,
}

const NOISES: [&str; 10] =
    ["normal", "laplace", "student", "ar", "wandering", "multiplied", "counts", "sparse", "bursty", "rounded"];

fn normal(random: &mut Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

fn poisson(random: &mut Rng, mean: f64) -> f64 {
    if mean > 200.0 {
        return (mean + mean.sqrt() * normal(random)).round().max(0.0);
    }
    let (mut product, limit, mut count) = (1.0, (-mean.max(0.0)).exp(), -1.0);
    while product > limit {
        product *= random.f64();
        count += 1.0;
    }
    count
}

struct Shape {
    level: f64,
    day: f64,
    weekend: f64,
    trend: f64,
    form: u8,
    phase: f64,
    start: f64,
}

impl Shape {
    fn at(&self, days: f64) -> f64 {
        let of_day = (days + self.phase).rem_euclid(1.0);
        let wave = match self.form {
            0 => 0.0,
            1 => (of_day * std::f64::consts::TAU).sin(),
            2 => f64::from(u8::from((0.35..0.75).contains(&of_day))) * 2.0 - 1.0,
            _ => (-((of_day - 0.4) / 0.06).powi(2)).exp() + 1.5 * (-((of_day - 0.75) / 0.1).powi(2)).exp() - 0.5,
        };
        let weekend = if days.rem_euclid(7.0) >= 5.0 { self.weekend } else { 1.0 };
        (self.level + self.day * wave) * weekend + self.trend * (days - self.start)
    }
}

/// A clean series and the noise's standard deviation.
fn clean(random: &mut Rng, noise: &str, times: &[f64]) -> (Vec<f64>, f64, Vec<f64>) {
    let sd = 1.0;
    let shape = Shape {
        level: 60.0 + 60.0 * random.f64(),
        day: [0.0, 4.0, 15.0, 30.0][random.usize(..4)],
        weekend: [1.0, 1.0, 0.8, 0.6][random.usize(..4)],
        trend: [0.0, 0.0, 0.1, -0.1][random.usize(..4)],
        form: random.u8(..4),
        phase: random.f64(),
        start: times[0],
    };
    let (mut ar, mut mean) = (0.0, Vec::new());
    let rho: f64 = [0.5, 0.8, 0.95][random.usize(..3)];
    let burst_rate = 0.002 + 0.01 * random.f64();
    let rate = 0.02 + 0.1 * random.f64();
    let mut burst = 0.0;
    let values = times
        .iter()
        .map(|days| {
            let base = shape.at(*days);
            mean.push(base);
            let z = normal(random);
            match noise {
                "normal" => base + z,
                "laplace" => base + (-random.f64().ln()) * if random.bool() { 0.7 } else { -0.7 },
                "student" => base + 0.6 * z / ((0..3).map(|_| normal(random).powi(2)).sum::<f64>() / 3.0).sqrt(),
                "ar" => {
                    ar = rho * ar + (1.0 - rho * rho).sqrt() * z;
                    base + 2.0 * ar
                }
                "wandering" => {
                    ar = 0.999 * ar + z;
                    base * 0.2 + ar
                }
                "multiplied" => base * (0.03 * z).exp(),
                "counts" => poisson(random, base.max(0.5)),
                "sparse" => poisson(random, rate * (base / 60.0).max(0.1)),
                "bursty" => {
                    burst *= 0.6;
                    if random.f64() < burst_rate {
                        burst = 10.0 + 10.0 * random.f64();
                    }
                    base * 0.1 + burst + 0.3 * z
                }
                _ => (base + z).round(),
            }
        })
        .collect();
    let sd = match noise {
        "counts" => 9.0,
        "multiplied" => 3.0,
        "sparse" => 1.0,
        "ar" => 2.0,
        "bursty" => 3.0,
        _ => sd,
    };
    (values, sd, mean)
}

fn strike(random: &mut Rng, values: &mut [f64], sd: f64, mean: &[f64], incident: &Incident) {
    let Incident { kind, size, from, steps } = *incident;
    let to = match kind {
        Kind::LastingShift => values.len(),
        _ => (from + steps).min(values.len()),
    };
    let sign = if random.bool() { 1.0 } else { -1.0 };
    let stuck = values[from];
    let center = mean.iter().sum::<f64>() / mean.len() as f64;
    for at in from..to {
        let since = (at - from) as f64;
        let offset = values[at] - mean[at];
        values[at] = match kind {
            Kind::Spike => values[at] + size * sd,
            Kind::Dip => values[at] - size * sd,
            Kind::Shift | Kind::LastingShift => values[at] + sign * size * 0.5 * sd,
            Kind::Outage => 0.0,
            Kind::Variance => values[at] + size * 0.4 * sd * normal(random),
            Kind::Stuck => stuck,
            Kind::SeasonLost => center + offset,
            Kind::Drift => values[at] + sign * size * sd * since / steps as f64,
            Kind::Bursts => values[at] + if random.f64() < 0.2 { size * 0.6 * sd } else { 0.0 },
        };
    }
}

/// The series of `seed`: clean where `seed` is a multiple of five.
pub(crate) fn make(seed: u64) -> Made {
    let mut random = Rng::with_seed(seed);
    let noise = NOISES[random.usize(..NOISES.len())];
    let (minutes, length) = [(5_i64, 4032_i64), (5, 4032), (30, 4000), (60, 2016)][random.usize(..4)];
    let start = 1_700_000_000_i64 / 3600 * 3600 + random.i64(0..168) * 3600;
    let times: Vec<f64> = (0..length).map(|at| (start + at * minutes * 60) as f64 / 86_400.0).collect();
    let (mut values, sd, mean) = clean(&mut random, noise, &times);
    let mut incidents = Vec::new();
    if !seed.is_multiple_of(5) {
        let count = random.usize(1..4);
        for part in 0..count {
            let kind = KINDS[random.usize(..KINDS.len())];
            let room = values.len() * 6 / 10 / count;
            let from = values.len() * 35 / 100 + part * room + random.usize(..room / 3);
            let steps = match kind {
                Kind::Spike | Kind::Dip => random.usize(1..4),
                Kind::SeasonLost => (1440 / minutes as usize).min(room / 2),
                _ => random.usize(20..120),
            };
            let incident = Incident { kind, size: SIZES[random.usize(..SIZES.len())], from, steps };
            strike(&mut random, &mut values, sd, &mean, &incident);
            incidents.push(incident);
        }
    }
    let rows = values.iter().enumerate().map(|(at, value)| ((start + at as i64 * minutes * 60) * 1_000_000, *value));
    Made { rows: rows.collect(), incidents, noise }
}
