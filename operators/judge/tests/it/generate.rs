//! Invented series with labelled incidents, the same ones for the same seed.
//!
//! A third are plain: a level, a season and one of ten noises. The others look like metrics of real systems
//! ([`crate::metrics`]).

use fastrand::Rng;

use crate::metrics::{self, Clean, FAMILIES};

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
    Holiday,
    Decay,
}

pub(crate) const KINDS: [Kind; 12] = [
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
    Kind::Holiday,
    Kind::Decay,
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

pub(crate) fn normal(random: &mut Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

pub(crate) fn poisson(random: &mut Rng, mean: f64) -> f64 {
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

/// A clean series with one of the plain noises.
fn plain(random: &mut Rng, noise: &str, start: f64) -> Clean {
    let (minutes, length) = [(5.0, 4032), (5.0, 4032), (30.0, 4000), (60.0, 2016)][random.usize(..4)];
    let times: Vec<f64> = (0..length).map(|at| start + f64::from(at) * minutes / 1_440.0).collect();
    let shape = Shape {
        level: 60.0 + 60.0 * random.f64(),
        day: [0.0, 4.0, 15.0, 30.0][random.usize(..4)],
        weekend: [1.0, 1.0, 0.8, 0.6][random.usize(..4)],
        trend: [0.0, 0.0, 0.1, -0.1][random.usize(..4)],
        form: random.u8(..4),
        phase: random.f64(),
        start: times[0],
    };
    let (mut ar, mut means) = (0.0, Vec::new());
    let rho: f64 = [0.5, 0.8, 0.95][random.usize(..3)];
    let burst_rate = 0.002 + 0.01 * random.f64();
    let rate = 0.02 + 0.1 * random.f64();
    let mut burst = 0.0;
    let values = times
        .iter()
        .map(|days| {
            let base = shape.at(*days);
            means.push(base);
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
    Clean { times, values, means }
}

/// The noise's standard deviation, as the middle nine tenths of it tell.
fn deviation(clean: &Clean) -> f64 {
    let mut off: Vec<f64> = clean.values.iter().zip(&clean.means).map(|(value, mean)| value - mean).collect();
    off.sort_by(f64::total_cmp);
    let quantile = |share: f64| off[(share * (off.len() - 1) as f64) as usize];
    let spread = (quantile(0.95) - quantile(0.05)) / 3.29;
    let level = clean.means.iter().map(|mean| mean.abs()).sum::<f64>() / clean.means.len() as f64;
    spread.max(0.01 * level)
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
            Kind::Holiday => values[at] - (size / 25.0).min(0.6) * mean[at],
            Kind::Decay => values[at] - size * sd * (1.0 - (-3.0 * since / steps as f64).exp()),
        };
    }
}

/// Never below 0, nor above 100 where the values are shares of a hundred.
fn bounded(values: &mut [f64], clean: &[f64]) {
    let least = clean.iter().copied().fold(f64::INFINITY, f64::min);
    if least >= 0.0 {
        values.iter_mut().for_each(|value| *value = value.max(0.0));
    }
}

/// How many rows an incident lasts.
fn steps_of(random: &mut Rng, kind: Kind, per_day: usize, room: usize) -> usize {
    let steps = match kind {
        Kind::Spike | Kind::Dip => random.usize(1..4),
        Kind::SeasonLost | Kind::Holiday => per_day,
        Kind::Decay => per_day / 4 + random.usize(..per_day),
        _ => random.usize(20..120),
    };
    steps.clamp(1, room / 2)
}

/// The series of `seed`: clean where `seed` is a multiple of five.
pub(crate) fn make(seed: u64) -> Made {
    let mut random = Rng::with_seed(seed);
    let start = (1_700_000_000_i64 / 3600 + random.i64(0..168)) as f64 / 24.0;
    let (noise, clean) = if random.u8(..3) == 0 {
        let noise = NOISES[random.usize(..NOISES.len())];
        (noise, plain(&mut random, noise, start))
    } else {
        let family = FAMILIES[random.usize(..FAMILIES.len())];
        (family, metrics::clean(&mut random, family, start))
    };
    let sd = deviation(&clean);
    let mut values = clean.values.clone();
    let days = clean.times[clean.times.len() - 1] - clean.times[0];
    let per_day = (values.len() as f64 / days) as usize;
    let mut incidents = Vec::new();
    if !seed.is_multiple_of(5) {
        let count = random.usize(1..5);
        for part in 0..count {
            let kind = KINDS[random.usize(..KINDS.len())];
            let room = values.len() * 7 / 10 / count;
            let from = values.len() * 25 / 100 + part * room + random.usize(..room / 2);
            let steps = steps_of(&mut random, kind, per_day, room);
            let incident = Incident { kind, size: SIZES[random.usize(..SIZES.len())], from, steps };
            strike(&mut random, &mut values, sd, &clean.means, &incident);
            incidents.push(incident);
        }
        bounded(&mut values, &clean.values);
    }
    let at_us = |days: f64| (days * 86_400.0).round() as i64 * 1_000_000;
    let rows = clean.times.iter().zip(&values).map(|(days, value)| (at_us(*days), *value));
    Made { rows: rows.collect(), incidents, noise }
}
