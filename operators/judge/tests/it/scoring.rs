//! The scoring of the Numenta Anomaly Benchmark (Lavin and Ahmad 2015): an alarm in a labelled window is worth more the
//! earlier it comes, each alarm outside costs, 0 is who never alarms and 100 who is always right at once.

use weir_judge::series::THRESHOLD;

/// Application profiles: name, weight of a false alarm, weight of a window missed.
pub(crate) const PROFILES: [(&str, f64, f64); 3] =
    [("standard", 0.11, 1.0), ("reward low FP", 0.22, 1.0), ("reward low FN", 0.11, 2.0)];

/// A judged row: its score, what it gives or costs when it is an alarm, and its window.
pub(crate) struct Row {
    pub(crate) score: f64,
    pub(crate) gain: f64,
    pub(crate) window: Option<usize>,
}

fn sigmoid(position: f64) -> f64 {
    if position > 3.0 { -1.0 } else { 2.0 / (1.0 + (5.0 * position).exp()) - 1.0 }
}

/// The benchmark's rows after probation, windows numbered from `first_window`.
pub(crate) fn judged(rows: &[(i64, f64)], scores: &[f64], windows: &[(i64, i64)], first_window: usize) -> Vec<Row> {
    let probation = (0.15 * rows.len() as f64).floor().min(750.0) as usize;
    let index = |at: i64| rows.iter().position(|row| row.0 == at).unwrap();
    let limits: Vec<(usize, usize)> = windows.iter().map(|window| (index(window.0), index(window.1))).collect();
    let gain_of = |at: usize| {
        if let Some(inside) = limits.iter().position(|limit| (limit.0..=limit.1).contains(&at)) {
            let (left, right) = limits[inside];
            let position = -((right - at + 1) as f64) / (right - left + 1) as f64;
            return (sigmoid(position) / sigmoid(-1.0), Some(first_window + inside));
        }
        let before = limits.iter().rfind(|limit| limit.1 < at);
        (before.map_or(-1.0, |(left, right)| sigmoid((at - right) as f64 / (right - left) as f64)), None)
    };
    (probation..rows.len())
        .map(|at| {
            let (gain, window) = gain_of(at);
            Row { score: scores[at], gain, window }
        })
        .collect()
}

/// Normalised score for each threshold: (threshold, score, windows found, false alarms).
fn sweep(rows: &[Row], windows: usize, fp: f64, fnw: f64) -> Vec<(f64, f64, usize, usize)> {
    let mut order: Vec<&Row> = rows.iter().collect();
    order.sort_by(|a, b| b.score.total_cmp(&a.score));
    let reached: std::collections::BTreeSet<usize> = rows.iter().filter_map(|row| row.window).collect();
    let null = -fnw * reached.len() as f64;
    let mut best = vec![-fnw; windows];
    let (mut sum, mut found, mut wrong) = (null, 0, 0);
    let mut points = Vec::new();
    for (at, row) in order.iter().enumerate() {
        match row.window {
            Some(window) => {
                found += usize::from(best[window] == -fnw);
                sum += f64::max(row.gain - best[window], 0.0);
                best[window] = best[window].max(row.gain);
            }
            None => {
                sum += row.gain * fp;
                wrong += 1;
            }
        }
        if order.get(at + 1).is_none_or(|next| next.score != row.score) {
            points.push((row.score, 100.0 * (sum - null) / (windows as f64 - null), found, wrong));
        }
    }
    points
}

/// What the product's threshold catches of one file: windows numbered from `first_window`, and false alarms.
pub(crate) fn caught(rows: &[Row], first_window: usize, windows: usize) -> String {
    let alarms =
        |window: Option<usize>| rows.iter().filter(|row| row.window == window && row.score >= THRESHOLD).count();
    let found = (0..windows).filter(|window| alarms(Some(first_window + window)) > 0).count();
    format!("{found:2} of {windows:2} windows, {:3} false", alarms(None))
}

/// The benchmark's score of all files' rows, at the best threshold for all and at the product's.
pub(crate) fn told(profile: &(&str, f64, f64), rows: &[Row], windows: usize) -> String {
    let points = sweep(rows, windows, profile.1, profile.2);
    let best = points.iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    let own = points.iter().rfind(|point| point.0 >= THRESHOLD).unwrap_or(&points[0]);
    format!(
        "{}: {:.1} at {:.3} ({} of {windows} windows, {} false); at the product's {THRESHOLD}: {:.1} ({}, {} false)",
        profile.0, best.1, best.0, best.2, best.3, own.1, own.2, own.3
    )
}
