//! Rewriting expectations: what came stands in the file, and everything else is left as it was.

use expect_test::expect;

use super::Shop;

#[test]
fn an_update_changes_what_differs_and_nothing_else() {
    let shop = Shop::new();
    let text = r#"# First of all.
events = [
  { at = "1s", user_id = "ada", amount = "10.00", type = "purchase" },   # ten
  { at = "61s", user_id = "bo", amount = -5, type = "purchase" },
  { at = "62s", user_id = "bo", amount = 2, type = "purchase", tenant = "dune" },
]

[expect]
quarantine = [{ reason = "rule", count = 7 }]

[expect.views]
by_minute = [
  # The first minute.
  { window_start = 2026-01-05T12:00:00Z,   events = 1 },  # stays as it is
  { window_start = "2026-01-05 12:01:00", events = 9 },
  { window_start = "2026-01-05 12:09:00", events = 9 },
]

[expect.ledger]   # all of it
accepted = 1      # two
"#;
    let played = shop.play(text);
    assert_eq!(played.differences.len(), 3);
    expect![[r##"
        # First of all.
        events = [
          { at = "1s", user_id = "ada", amount = "10.00", type = "purchase" },   # ten
          { at = "61s", user_id = "bo", amount = -5, type = "purchase" },
          { at = "62s", user_id = "bo", amount = 2, type = "purchase", tenant = "dune" },
        ]

        [expect]
        quarantine = [{ reason = "rule", count = 1 }]

        [expect.views]
        by_minute = [
          # The first minute.
          { window_start = 2026-01-05T12:00:00Z,   events = 1 },  # stays as it is
          { window_start = "2026-01-05 12:01:00", events = 1 },
        ]

        [expect.ledger]   # all of it
        accepted = 2      # two
    "##]]
    .assert_eq(&played.updated);
    let again = shop.play(&played.updated);
    assert_eq!(again.differences, []);
    assert_eq!(again.updated, played.updated, "what is met isn't touched");
}

#[test]
fn an_empty_expectation_is_filled_with_everything_that_is_shown() {
    let shop = Shop::new();
    let text = "events = [{ at = '1s', user_id = 'ada', amount = '1.50', type = 'purchase', tenant = 'dune' }]\n\
                [expect]\nquarantine = []\n[expect.ledger]\n[expect.views]\nby_minute = []\n";
    expect![[r#"
        events = [{ at = '1s', user_id = 'ada', amount = '1.50', type = 'purchase', tenant = 'dune' }]
        [expect]
        quarantine = []
        [expect.ledger]
        accepted = 1
        consumed = 1
        [expect.views]
        by_minute = [
          { window_start = "2026-01-05 12:00:00", tenant = "dune", events = 1, revenue = "1.50", users = 1, mean = 1.5, median = 1.5067630358630384 },
        ]
    "#]].assert_eq(&shop.play(text).updated);
    let sections = "events = [{ at = '1s', amount = 1, type = 'purchase' }, { at = '61s', amount = 2, type = 'purchase' }]\n\
                    [[expect.views.by_minute]]\nwindow_start = '2026-01-05 12:00:00'   # this one\nrevenue = 7\n";
    expect![[r#"
        events = [{ at = '1s', amount = 1, type = 'purchase' }, { at = '61s', amount = 2, type = 'purchase' }]
        [[expect.views.by_minute]]
        window_start = '2026-01-05 12:00:00'   # this one
        revenue = "1.00"

        [[expect.views.by_minute]]
        window_start = "2026-01-05 12:01:00"
        revenue = "2.00"
    "#]]
    .assert_eq(&shop.play(sections).updated);
}

#[test]
fn a_row_is_updated_by_the_one_of_its_key_or_taken_out() {
    let shop = Shop::new();
    let events = "events = [\n  { at = '1s', amount = 1, type = 'purchase', tenant = 'alpine' },\n  \
                  { at = '2s', amount = 2, type = 'purchase', tenant = 'dune' },\n]\n";
    let some = format!(
        "{events}[expect]\nsubset = ['by_minute']\n[expect.views]\nby_minute = [\n  {{ tenant = 'dune', revenue = 7 }},\n  \
         {{ tenant = 'nobody', revenue = 7 }},\n]\n"
    );
    let updated = shop.play(&some).updated;
    assert!(updated.contains("{ tenant = 'dune', revenue = \"2.00\" },\n"), "{updated}");
    assert!(!updated.contains("nobody") && !updated.contains("alpine', revenue"), "{updated}");
    assert_eq!(shop.play(&updated).differences, []);

    let all = format!(
        "{events}[expect.views]\nby_minute = [\n  {{ tenant = 'dune', revenue = 7 }},\n  \
         {{ tenant = 'alpine', revenue = 7 }},\n]\n"
    );
    let updated = shop.play(&all).updated;
    let both = "{ tenant = 'dune', revenue = \"2.00\" },\n  { tenant = 'alpine', revenue = \"1.00\" },";
    assert!(updated.contains(both), "{updated}");
}
