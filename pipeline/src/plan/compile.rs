//! From a plan's versions to rules, and to what judges events by them.
//!
//! Versions that ask the same of a field share a rule; it is named after the first of them, so that a further version renames
//! none.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use weir_operators::expr::{Expr, Function, Scalar};
use weir_operators::plan::{Claims, Keys, Plan as BoundPlan, Scope};
use weir_operators::rule::{Basis, Rule, Shown, Value};
use weir_schemas::fate::Reason;
use weir_schemas::rule::{Mode, Severity};
use weir_schemas::stage::system;
use weir_schemas::types::ColumnType;

use super::{EventType, Plan, Planned, Version};
use crate::cause;
use crate::config::{self, JudgedBy, TrackingPlan};
use crate::problem::Problem;
use crate::rules::is_sensitive;
use crate::sql::{self, SourceColumns};

/// The rule of events that claim no version, or one that isn't there.
pub const UNKNOWN_VERSION: &str = "plan_unknown_version";
/// The rule of events of a type that their version doesn't have.
pub const UNKNOWN_TYPE: &str = "plan_unknown_type";
/// The rule of events with properties that their version doesn't have.
pub const UNPLANNED_PROPERTY: &str = "plan_unplanned_property";

/// Rules that a plan may come to, at most.
const RULES_MAX: usize = 20_000;

/// Where a plan is compiled.
pub struct Place<'a> {
    /// The pipeline file's name.
    pub file: &'a str,
    /// The source's name.
    pub name: &'a str,
    /// The source.
    pub source: &'a config::Source,
    /// How the source uses the plan.
    pub uses: &'a TrackingPlan,
    /// Its columns.
    pub columns: &'a SourceColumns,
}

/// A compiled plan: its rules, and what judges by them once they have their places among the source's.
pub struct Compiled {
    /// The rules.
    pub rules: Vec<Rule>,
    claims: Claims,
    /// Of each scope, the conditions by the rules' ids, and the keys that are planned for each map.
    scopes: Vec<ScopeDraft>,
    /// By version, whether events of other types are fine.
    open: Vec<bool>,
    maps: Vec<(String, usize)>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct ScopeDraft {
    /// Indices of groups.
    groups: Vec<usize>,
    keys: Option<Vec<Vec<String>>>,
}

/// What versions ask of a field alike.
struct Group {
    id: String,
    text: String,
    mode: Mode,
    severity: Severity,
    owner: String,
    event_type: String,
    field: String,
    versions: BTreeSet<usize>,
    condition: Expr,
    shown: Expr,
}

/// What the walk over the versions knows.
struct Compiling<'a> {
    place: &'a Place<'a>,
    version: Expr,
    groups: Vec<Group>,
    /// Groups by event type and field.
    known: HashMap<(String, String), Vec<usize>>,
    maps: Vec<(String, usize)>,
    problems: Vec<Problem>,
}

/// Compiles `plan` over the columns of its source.
///
/// # Errors
/// Every problem, at its place in the plan's files or in the pipeline file.
pub fn compile(plan: &Plan, place: &Place<'_>) -> Result<Compiled, Vec<Problem>> {
    let (event_type, version) = claimed(place)?;
    let mut compiling = Compiling {
        place,
        version: version.clone(),
        groups: Vec::new(),
        known: HashMap::new(),
        maps: Vec::new(),
        problems: Vec::new(),
    };
    compiling.find_maps(plan);
    let names: Vec<String> = plan.versions.iter().map(|version| version.name.clone()).collect();
    let unknown_as = match place.uses.judge_unknown_by {
        JudgedBy::Newest => names.len().checked_sub(1),
        JudgedBy::Oldest => (!names.is_empty()).then_some(0),
        JudgedBy::Nothing => None,
    };
    let mut claims = Claims::new(event_type, version, &names, unknown_as);
    let (mut scopes, mut numbers) = (Vec::new(), HashMap::new());
    for (at, version) in plan.versions.iter().enumerate() {
        for (name, event) in &version.plan.events {
            let draft = compiling.event_type(at, version, name, event);
            let number = *numbers.entry(draft.clone()).or_insert_with(|| {
                scopes.push(draft);
                scopes.len() - 1
            });
            claims.add(at, name, number);
        }
    }
    if compiling.groups.len() > RULES_MAX {
        let message = format!("the plan comes to {} rules, and {RULES_MAX} is the most", compiling.groups.len());
        let folder = place.uses.folder.display().to_string();
        compiling.problems.push(Problem::of_file(&folder, message, "remove versions that nobody sends any more"));
    }
    if !compiling.problems.is_empty() {
        return Err(compiling.problems);
    }
    let open = plan.versions.iter().map(|version| version.plan.other_types).collect();
    let mut rules: Vec<Rule> = compiling.groups.iter().map(|group| compiling.rule(group, &names)).collect();
    rules.extend(compiling.own_rules(&names));
    let maps = std::mem::take(&mut compiling.maps);
    let mut compiled = Compiled { rules, claims, scopes, open, maps };
    compiled.keep_conditions(&compiling.groups);
    Ok(compiled)
}

/// The event type's column in a batch and the claimed version as text.
fn claimed(place: &Place<'_>) -> Result<(usize, Expr), Vec<Problem>> {
    let problem = |message: String, remedy: &str| vec![Problem::of_file(place.file, message, remedy)];
    let columns = &place.columns.columns;
    let at = place.source.event_type.as_ref().and_then(|name| columns.iter().position(|column| column.name == *name));
    let Some(at) = at else {
        let message = format!("source `{}` has a tracking plan, and no event type", place.name);
        return Err(problem(message, "name its field in `event_type`"));
    };
    let file = format!("{}, source `{}`, plan.version", place.file, place.name);
    let version = sql::plan_field(&place.uses.version, &file, place.columns)?;
    let plain = version.column_type().without_null().clone();
    let version = match plain {
        ColumnType::String | ColumnType::LowCardinality => version,
        ColumnType::Int(_) | ColumnType::UInt(_) => Expr::call(Function::ToString, vec![version])
            .map_err(|refusal| problem(refusal.message, "name a field of text in plan.version"))?,
        other => {
            let message = format!("source `{}`: `plan.version` is {other}", place.name);
            return Err(problem(message, "name a field of text or of whole numbers"));
        }
    };
    Ok((at + system::COUNT, version))
}

/// The map and the key of a field that is a map's value.
fn map_key(field: &Expr) -> Option<(&str, usize, String)> {
    let Expr::Call { function: Function::MapGet, arguments, .. } = field else { return None };
    match arguments.as_slice() {
        [Expr::Column { name, index, .. }, Expr::Literal { value: Scalar::Bytes(key), .. }] => {
            Some((name, *index, String::from_utf8_lossy(key).into_owned()))
        }
        _ => None,
    }
}

impl Compiling<'_> {
    fn file_of(version: &Version, planned: &Planned<'_>) -> String {
        format!("{}, {}", version.file, Version::path_of(planned).join("."))
    }

    /// Notes every map that some version names a key of.
    fn find_maps(&mut self, plan: &Plan) {
        for version in &plan.versions {
            for (name, event) in &version.plan.events {
                for planned in version.plan.fields_of(name, event) {
                    let field = sql::plan_field(planned.name, "", self.place.columns).ok();
                    if let Some((map, index, _)) = field.as_ref().and_then(map_key)
                        && !self.maps.iter().any(|(_, known)| *known == index)
                    {
                        self.maps.push((map.to_owned(), index));
                    }
                }
            }
        }
    }

    /// What a version asks of an event type.
    fn event_type(&mut self, at: usize, version: &Version, name: &str, event: &EventType) -> ScopeDraft {
        let mut keys = vec![BTreeSet::new(); self.maps.len()];
        let mut groups = Vec::new();
        if let Some((_, index, key)) = map_key(&self.version) {
            self.note_key(index, key, &mut keys);
        }
        for planned in version.plan.fields_of(name, event) {
            match sql::plan_field(planned.name, &Compiling::file_of(version, &planned), self.place.columns) {
                Ok(field) => {
                    if let Some((_, index, key)) = map_key(&field) {
                        self.note_key(index, key, &mut keys);
                    }
                    groups.extend(self.group(at, version, &planned, &field));
                }
                Err(found) => self.problem_once(found),
            }
        }
        let is_closed = !version.plan.allows_others(event);
        let keys = is_closed.then(|| keys.into_iter().map(|keys| keys.into_iter().collect()).collect());
        ScopeDraft { groups, keys }
    }

    fn note_key(&self, index: usize, key: String, keys: &mut [BTreeSet<String>]) {
        let at = self.maps.iter().position(|(_, known)| *known == index);
        if let Some(keys) = at.and_then(|at| keys.get_mut(at)) {
            keys.insert(key);
        }
    }

    /// Fields of every type come by once for each of them; their problems are told once.
    fn problem_once(&mut self, found: Vec<Problem>) {
        for problem in found {
            if !self.problems.contains(&problem) {
                self.problems.push(problem);
            }
        }
    }

    /// The group of a planned field; none where nothing is asked of it.
    fn group(&mut self, at: usize, version: &Version, planned: &Planned<'_>, field: &Expr) -> Option<usize> {
        let text = match planned.field.condition(planned.name, field.column_type()) {
            Ok(text) => text?,
            Err((key, message, remedy)) => {
                let path: Vec<&str> = Version::path_of(planned).into_iter().chain([key]).collect();
                self.problem_once(vec![version.problem(&path, message, remedy)]);
                return None;
            }
        };
        let key = (planned.of.to_owned(), planned.name.to_owned());
        let mode = planned.mode.min(self.place.uses.mode_at_most);
        let alike = |group: &Group| {
            group.text == text
                && group.mode == mode
                && group.severity == planned.severity
                && group.owner == planned.owner
        };
        let known = self.known.get(&key).into_iter().flatten().copied();
        if let Some(number) = known.into_iter().find(|number| self.groups.get(*number).is_some_and(alike)) {
            if let Some(group) = self.groups.get_mut(number) {
                group.versions.insert(at);
            }
            return Some(number);
        }
        let file = Compiling::file_of(version, planned);
        let condition = match sql::plan_condition(&text, &file, self.place.columns) {
            Ok(condition) => condition,
            Err(found) => {
                self.problem_once(found);
                return None;
            }
        };
        let path = planned.name.replace("['", ".").replace("']", "");
        let shown = Expr::call(Function::ToString, vec![field.clone()]).ok().unwrap_or_else(|| self.version.clone());
        self.groups.push(Group {
            id: format!("plan/{}/{path}@{}", planned.of, version.name),
            text,
            mode,
            severity: planned.severity,
            owner: planned.owner.to_owned(),
            event_type: planned.of.to_owned(),
            field: planned.name.to_owned(),
            versions: BTreeSet::from([at]),
            condition,
            shown,
        });
        self.known.entry(key).or_default().push(self.groups.len() - 1);
        Some(self.groups.len() - 1)
    }

    fn rule(&self, group: &Group, names: &[String]) -> Rule {
        let versions: Vec<&str> = group.versions.iter().filter_map(|at| names.get(*at)).map(String::as_str).collect();
        let plan = format!("plan {}", versions.join(", "));
        let when = match group.event_type.as_str() {
            super::EVERY_TYPE => plan,
            event_type => {
                let column = self.place.source.event_type.as_deref().unwrap_or_default();
                format!("{column} = {}, {plan}", crate::rules::quoted(event_type))
            }
        };
        let value = match is_sensitive(&self.place.source.sensitive, &group.field) {
            true => Value::Masked,
            false => Value::Text(group.shown.clone()),
        };
        let shown = vec![Shown { name: None, value }, self.shown_version()];
        self.make(&group.id, group.mode, &group.field, &when, &group.text, shown, (group.severity, &group.owner))
    }

    fn shown_version(&self) -> Shown {
        Shown { name: Some("plan".to_owned()), value: Value::Text(self.version.clone()) }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one rule, each with a name where it is called")]
    fn make(
        &self,
        id: &str,
        mode: Mode,
        field: &str,
        when: &str,
        expected: &str,
        shown: Vec<Shown>,
        (severity, owner): (Severity, &str),
    ) -> Rule {
        Rule {
            id: Arc::from(id),
            mode,
            severity,
            owner: Arc::from(owner),
            field: Arc::from(field),
            when: Arc::from(when),
            expected: Arc::from(expected),
            basis: Basis::Plan,
            shown,
            fingerprint: Arc::from(cause::fingerprint(self.place.name, Reason::Rule, id, "")),
        }
    }

    /// The rules that every plan has. Keys that aren't planned are told once [`Compiled::bind`] knows them.
    fn own_rules(&self, names: &[String]) -> Vec<Rule> {
        let Place { source, uses, .. } = self.place;
        let event_type = source.event_type.as_deref().unwrap_or_default();
        let column = self.place.columns.columns.iter().position(|column| column.name == event_type);
        let kind = column.and_then(|at| self.place.columns.columns.get(at).map(|column| (at, column)));
        let kind = kind.map(|(at, column)| Expr::Column {
            index: at + system::COUNT,
            name: column.name.clone(),
            column_type: column.column_type.clone(),
        });
        let kind = kind.map(|kind| Shown { name: None, value: Value::Text(kind) });
        let told = |first: Option<Shown>| first.into_iter().chain([self.shown_version()]).collect();
        let at_most = |mode: Mode| mode.min(uses.mode_at_most);
        let by = (Severity::Warning, "");
        let known = format!("{} is one of {}", uses.version, names.join(", "));
        let of_type = format!("{event_type} is one of the plan's");
        let shown = vec![Shown { name: None, value: Value::Text(self.version.clone()) }];
        vec![
            self.make(UNKNOWN_VERSION, at_most(uses.unknown_version), &uses.version, "", &known, shown, by),
            self.make(UNKNOWN_TYPE, at_most(uses.unknown_type), event_type, "", &of_type, told(kind), by),
            self.make(
                UNPLANNED_PROPERTY,
                at_most(uses.unplanned_property),
                "",
                "",
                "no properties that aren't planned",
                told(None),
                by,
            ),
        ]
    }
}

impl Compiled {
    /// Until the rules have their places, each scope's conditions are known by the place in [`Compiled::rules`]: groups
    /// come first there, in their order.
    fn keep_conditions(&mut self, groups: &[Group]) {
        for (rule, group) in self.rules.iter_mut().zip(groups) {
            rule.basis = Basis::Condition(group.condition.clone());
        }
    }

    /// Binds to the places of its rules among a source's: `place_of` an id. The rules lose their conditions, which the plan
    /// judges by.
    pub fn bind(self, rules: &mut [Rule]) -> BoundPlan {
        let place_of: HashMap<Arc<str>, usize> =
            rules.iter().enumerate().map(|(at, rule)| (Arc::clone(&rule.id), at)).collect();
        let place = |id: &str| place_of.get(id).copied();
        let condition_of = |group: &usize| {
            let rule = self.rules.get(*group)?;
            match &rule.basis {
                Basis::Condition(condition) => Some((place(&rule.id)?, condition.clone())),
                _ => None,
            }
        };
        let scopes = self.scopes.iter().map(|scope| {
            let conditions: Vec<(usize, Expr)> = scope.groups.iter().filter_map(condition_of).collect();
            Scope::new(&conditions)
        });
        let scopes = scopes.collect();
        let claims = Arc::new(self.claims);
        let planned: Vec<Option<Vec<Vec<String>>>> = self.scopes.iter().map(|scope| scope.keys.clone()).collect();
        let is_closed = !self.maps.is_empty() && planned.iter().any(Option::is_some);
        let keys = Arc::new(Keys::new(Arc::clone(&claims), self.maps.clone(), planned));
        let unplanned = place(UNPLANNED_PROPERTY).filter(|_| is_closed);
        for own in &self.rules {
            if let Some(rule) = place(&own.id).and_then(|at| rules.get_mut(at)) {
                rule.basis = Basis::Plan;
            }
        }
        if let Some(rule) = unplanned.and_then(|at| rules.get_mut(at)) {
            rule.shown.insert(0, Shown { name: None, value: Value::Unplanned(Arc::clone(&keys)) });
        }
        let unknown_type = place(UNKNOWN_TYPE);
        BoundPlan {
            unknown_version: place(UNKNOWN_VERSION),
            unknown_type: self.open.iter().map(|is_open| unknown_type.filter(|_| !is_open)).collect(),
            unplanned: unplanned.map(|rule| (rule, keys)),
            claims,
            scopes,
        }
    }
}
