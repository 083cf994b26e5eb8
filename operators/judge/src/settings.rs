//! What the judge goes by; one set of numbers for every tenant, field and indicator.

use crate::tally::Family;

/// Numbers that decide when a series is out of order.
#[derive(Clone, Debug)]
pub struct Settings {
    /// False alerts that one tenant may expect per week, over all of its series.
    pub false_alerts_per_week: f64,
    /// Windows that a platform's field, or a tenant's volume, is watched before it is judged, and a release before what it
    /// brings is its habit: types, schemas, and how it differs from the others.
    pub learn_windows: u32,
    /// Users that must be affected: in one window, and summed over the windows of the evidence.
    pub users_in_window_min: f64,
    pub users_min: f64,
    /// Least effect on the logit scale and in shares, for one release against the others.
    pub release: Effects,
    /// The same for what moves in all releases of a platform at once.
    pub platform: Effects,
    /// Standard deviation (logit) by which releases differ without a fault, as long as no more is known of them: of faults and
    /// of what moves with people's choices.
    pub between_usual: f64,
    pub between_of_mix_usual: f64,
    /// Standard deviation (logit) by which a known release's difference may wander, at least.
    pub within_min: f64,
    /// Standard deviation (logit) of a platform's own season that is never taken for less.
    pub past_min: f64,
    pub past_of_mix_min: f64,
    /// The part of it that is left where others are there to compare with, so that the past is a second opinion.
    pub past_beside_others: f64,
    /// Part of a move of all releases by which each may follow it differently.
    pub follow_differently: f64,
    /// A drop of volume must leave less than this part of what is usual, for at least as many windows.
    pub volume_left_max: f64,
    pub volume_windows: u32,
    /// Logarithm of the likelihood ratio by which a series must be back in order, over at least as many windows.
    pub ln_recovery: f64,
    pub recovery_windows: u32,
    /// Series that were not seen for as many windows are forgotten.
    pub forget_after_windows: u32,
    /// Indicators told apart per platform, type and field; further ones aren't judged (and are counted as skipped).
    pub indicators_max: usize,
}

/// What an effect must be to be worth a person's time.
#[derive(Clone, Copy, Debug)]
pub struct Effects {
    pub shift_min: f64,
    pub difference_min: f64,
    pub shift_of_mix_min: f64,
    pub difference_of_mix_min: f64,
    /// A mix that is further off than people's choices ever move it matters from a lesser share on.
    pub far_shift_of_mix: f64,
    pub far_difference_of_mix_min: f64,
}

impl Effects {
    /// Least shift and difference; an effect that reaches either pair matters.
    pub fn of(&self, family: Family) -> [(f64, f64); 2] {
        if family.is_mix() {
            let near = (self.shift_of_mix_min, self.difference_of_mix_min);
            [near, (self.far_shift_of_mix, self.far_difference_of_mix_min)]
        } else {
            [(self.shift_min, self.difference_min); 2]
        }
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            false_alerts_per_week: 0.5,
            learn_windows: 72,
            users_in_window_min: 1.5,
            users_min: 10.0,
            release: Effects {
                shift_min: 0.6,
                difference_min: 0.02,
                shift_of_mix_min: 1.4,
                difference_of_mix_min: 0.08,
                far_shift_of_mix: 2.0,
                far_difference_of_mix_min: 0.03,
            },
            platform: Effects {
                shift_min: 1.2,
                difference_min: 0.03,
                shift_of_mix_min: 3.0,
                difference_of_mix_min: 0.02,
                far_shift_of_mix: 3.0,
                far_difference_of_mix_min: 0.02,
            },
            between_usual: 0.25,
            between_of_mix_usual: 0.35,
            within_min: 0.1,
            past_min: 0.35,
            past_of_mix_min: 0.45,
            past_beside_others: 0.6,
            follow_differently: 0.3,
            volume_left_max: 0.4,
            volume_windows: 2,
            ln_recovery: 7.0,
            recovery_windows: 2,
            forget_after_windows: 24 * 28,
            indicators_max: 64,
        }
    }
}
