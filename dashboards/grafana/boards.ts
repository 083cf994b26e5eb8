// The boards, written with Grafana's own Foundation SDK, whose types are its schemas: what this file makes is a board by
// construction. `boards.sh` compiles it strictly and writes analyst.json, engineer.json and sdk-team.json beside it.
//
// Every panel's description is the question that it answers. Names of tables and metrics are checked by a test of the program.

import { writeFileSync } from 'node:fs';
import { Builder, Dataquery } from '@grafana/grafana-foundation-sdk/cog';
import {
  BigValueColorMode,
  GraphDrawStyle,
  LegendDisplayMode,
  LegendPlacement,
  StackingMode,
  VisibilityMode,
} from '@grafana/grafana-foundation-sdk/common';
import {
  DashboardBuilder,
  DashboardCursorSync,
  DatasourceVariableBuilder,
  QueryVariableBuilder,
  VariableRefresh,
} from '@grafana/grafana-foundation-sdk/dashboard';
import { VizLegendOptionsBuilder, StackingConfigBuilder } from '@grafana/grafana-foundation-sdk/common';
import { DataqueryBuilder as PrometheusQuery } from '@grafana/grafana-foundation-sdk/prometheus';
import { PanelBuilder as Stat } from '@grafana/grafana-foundation-sdk/stat';
import { PanelBuilder as Table } from '@grafana/grafana-foundation-sdk/table';
import { PanelBuilder as Series } from '@grafana/grafana-foundation-sdk/timeseries';

const CLICKHOUSE = { type: 'grafana-clickhouse-datasource', uid: '${clickhouse}' };
const PROMETHEUS = { type: 'prometheus', uid: '${prometheus}' };

// What the plugin grafana-clickhouse-datasource (4.x) takes as a query written in SQL.
interface ClickHouseQuery extends Dataquery {
  refId?: string;
  hide?: boolean;
  datasource: { type: string; uid: string };
  editorType: 'sql';
  queryType: 'table' | 'timeseries';
  format: 0 | 1;
  rawSql: string;
}

class Sql implements Builder<Dataquery> {
  constructor(
    private readonly kind: 'table' | 'timeseries',
    private readonly sql: string,
  ) {}
  build(): ClickHouseQuery {
    return {
      refId: 'A',
      datasource: CLICKHOUSE,
      editorType: 'sql',
      queryType: this.kind,
      format: this.kind === 'timeseries' ? 0 : 1,
      rawSql: this.sql.trim(),
      _implementsDataqueryVariant() {},
    };
  }
}

const legend = () =>
  new VizLegendOptionsBuilder()
    .displayMode(LegendDisplayMode.List)
    .placement(LegendPlacement.Bottom)
    .showLegend(true)
    .calcs([]);

function series(title: string, question: string, unit: string): Series {
  return new Series()
    .title(title)
    .description(question)
    .unit(unit)
    .min(0)
    .height(8)
    .span(12)
    .fillOpacity(10)
    .showPoints(VisibilityMode.Never)
    .legend(legend());
}

function sqlSeries(title: string, question: string, unit: string, sql: string): Series {
  return series(title, question, unit).datasource(CLICKHOUSE).withTarget(new Sql('timeseries', sql));
}

function promSeries(title: string, question: string, unit: string, queries: [string, string][]): Series {
  const panel = series(title, question, unit).datasource(PROMETHEUS);
  queries.forEach(([expr, name], at) =>
    panel.withTarget(
      new PrometheusQuery()
        .datasource(PROMETHEUS)
        .expr(expr)
        .legendFormat(name)
        .range()
        .refId(String.fromCharCode(65 + at)),
    ),
  );
  return panel;
}

function sqlStat(title: string, question: string, unit: string, sql: string): Stat {
  return new Stat()
    .title(title)
    .description(question)
    .unit(unit)
    .height(4)
    .span(6)
    .colorMode(BigValueColorMode.None)
    .datasource(CLICKHOUSE)
    .withTarget(new Sql('table', sql));
}

function promStat(title: string, question: string, unit: string, expr: string): Stat {
  return new Stat()
    .title(title)
    .description(question)
    .unit(unit)
    .height(4)
    .span(6)
    .colorMode(BigValueColorMode.None)
    .datasource(PROMETHEUS)
    .withTarget(new PrometheusQuery().datasource(PROMETHEUS).expr(expr).instant().refId('A'));
}

function sqlTable(title: string, question: string, sql: string, span = 12): Table {
  return new Table()
    .title(title)
    .description(question)
    .height(9)
    .span(span)
    .datasource(CLICKHOUSE)
    .withTarget(new Sql('table', sql));
}

function board(title: string, uid: string, description: string): DashboardBuilder {
  return new DashboardBuilder(title)
    .uid(uid)
    .description(description)
    .tags(['weir'])
    .timezone('browser')
    .editable()
    .tooltip(DashboardCursorSync.Crosshair)
    .withVariable(
      new DatasourceVariableBuilder('clickhouse').label('ClickHouse').type('grafana-clickhouse-datasource'),
    )
    .withVariable(new DatasourceVariableBuilder('prometheus').label('Prometheus').type('prometheus'));
}

const tenants = () =>
  new QueryVariableBuilder('tenant')
    .label('Tenant')
    .datasource(CLICKHOUSE)
    .multi(true)
    .includeAll(true)
    .query('SELECT DISTINCT tenant FROM weir_ledger ORDER BY tenant')
    .refresh(VariableRefresh.OnTimeRangeChanged);

const IN_RANGE = '$__timeFilter(window_start) AND tenant IN (${tenant:singlequote})';

const analyst = board('Weir: analyst', 'weir-analyst', 'What came in, how much of it is complete, and from whom.')
  .refresh('10s')
  .time({ from: 'now-1h', to: 'now' })
  .withVariable(tenants())
  .withPanel(
    sqlStat(
      'Complete to',
      'Up to when are these numbers complete?',
      'dateTimeAsLocal',
      "SELECT toUnixTimestamp64Milli(complete_through) AS complete_to FROM weir_progress WHERE view = 'revenue_by_minute'",
    ),
  )
  .withPanel(
    sqlStat(
      'Behind',
      'How long ago was that?',
      'ms',
      "SELECT lag_ms FROM weir_progress WHERE view = 'revenue_by_minute'",
    ),
  )
  .withPanel(
    sqlStat(
      'Revenue',
      'What was sold over the range?',
      'short',
      `SELECT sum(revenue) AS revenue FROM revenue_by_minute WHERE ${IN_RANGE}`,
    ),
  )
  .withPanel(
    sqlStat(
      'Shoppers',
      'How many different people came over the range?',
      'short',
      `SELECT uniqExactMerge(users_state) AS shoppers FROM revenue_by_minute WHERE ${IN_RANGE}`,
    ),
  )
  .withPanel(
    sqlSeries(
      'Revenue',
      'How does revenue go, by shop?',
      'short',
      `
SELECT $__timeInterval(window_start) AS time, tenant, sum(revenue) AS revenue
FROM revenue_by_minute
WHERE ${IN_RANGE}
GROUP BY time, tenant
ORDER BY time`,
    ),
  )
  .withPanel(
    sqlSeries(
      'Orders, complete and provisional',
      'Which of these orders may still become more?',
      'short',
      `
SELECT $__timeInterval(window_start) AS time, sumIf(orders, is_closed) AS complete, sumIf(orders, NOT is_closed) AS provisional
FROM revenue_by_minute
WHERE ${IN_RANGE}
GROUP BY time
ORDER BY time`,
    )
      .stacking(new StackingConfigBuilder().mode(StackingMode.Normal))
      .drawStyle(GraphDrawStyle.Bars),
  )
  .withPanel(
    sqlSeries(
      'Shoppers',
      'How many different people are there in each interval? (States are merged, so any interval is right.)',
      'short',
      `
SELECT $__timeInterval(window_start) AS time, tenant, uniqExactMerge(users_state) AS shoppers
FROM revenue_by_minute
WHERE ${IN_RANGE}
GROUP BY time, tenant
ORDER BY time`,
    ),
  )
  .withPanel(
    sqlSeries(
      'This week over last',
      'How does revenue compare with the same time a week ago?',
      'short',
      `
SELECT $__timeInterval(at) AS time, sumIf(revenue, week = 'this') AS this_week, sumIf(revenue, week = 'last') AS last_week
FROM
(
    SELECT window_start AS at, revenue, 'this' AS week FROM revenue_by_minute WHERE ${IN_RANGE}
    UNION ALL
    SELECT window_start + toIntervalDay(7), revenue, 'last' FROM revenue_by_minute
    WHERE window_start >= $__fromTime - toIntervalDay(7) AND window_start <= $__toTime - toIntervalDay(7) AND tenant IN (\${tenant:singlequote})
)
GROUP BY time
ORDER BY time`,
    ),
  )
  .withPanel(
    sqlTable(
      'Countries',
      'Which countries is the revenue from?',
      `
SELECT country, sum(orders) AS orders, sum(revenue) AS revenue, uniqExactMerge(users_state) AS shoppers
FROM revenue_by_minute
WHERE ${IN_RANGE}
GROUP BY country
ORDER BY revenue DESC
LIMIT 20`,
    ),
  )
  .withPanel(
    sqlSeries(
      'Visitors by platform',
      'Which platforms do visitors come with, hour by hour?',
      'short',
      `
SELECT window_start AS time, sdk, uniqCombined64Merge(visitors_state) AS visitors
FROM visitors_by_hour
WHERE window_start >= toStartOfHour($__fromTime) AND window_start <= $__toTime AND tenant IN (\${tenant:singlequote})
GROUP BY time, sdk
ORDER BY time`,
    ),
  )
  .withPanel(
    sqlSeries(
      'What a purchase is worth',
      'Where does the middle purchase lie?',
      'short',
      `
SELECT window_start AS time, tenant, quantileDDMerge(0.01, 0.5)(median_state) AS median
FROM purchases_by_five_minutes
WHERE ${IN_RANGE}
GROUP BY time, tenant
ORDER BY time`,
    ),
  )
  .withPanel(
    sqlTable(
      'Corrected windows',
      'Which windows were corrected by late events after they had closed?',
      `
SELECT window_start, tenant, country, orders, revenue, revision, is_final
FROM revenue_by_minute
WHERE ${IN_RANGE} AND revision > 0
ORDER BY window_start DESC
LIMIT 100`,
    ),
  );

const engineer = board(
  'Weir: engineer',
  'weir-engineer',
  'Whether records flow, what holds them up, and whether every one is accounted for.',
)
  .refresh('10s')
  .time({ from: 'now-1h', to: 'now' })
  .withPanel(
    promStat(
      'Behind the clock',
      'How old is the newest time that all events up to it are in?',
      's',
      'max(time() - weir_watermark_seconds)',
    ),
  )
  .withPanel(promStat('Lag', 'How many records wait in the log?', 'short', 'sum(weir_lag_records)'))
  .withPanel(
    promStat(
      'Not delivered',
      'How many epochs are committed and not yet in ClickHouse and the topics?',
      'short',
      'max(weir_committed_epoch - weir_delivered_epoch)',
    ),
  )
  .withPanel(
    promStat(
      'Ledger',
      'How many epochs did not balance? More than 0 is a bug.',
      'short',
      'sum(weir_ledger_imbalances_total)',
    ),
  )
  .withPanel(
    promSeries('Records in', 'How many records come, by source?', 'cps', [
      ['sum by (source) (rate(weir_records_consumed_total[$__rate_interval]))', '{{source}}'],
    ]),
  )
  .withPanel(
    promSeries('What becomes of them', 'How many are accepted, refused, late or copies?', 'cps', [
      ['sum by (fate) (rate(weir_records_total[$__rate_interval]))', '{{fate}}'],
    ]),
  )
  .withPanel(
    promSeries('Lag by partition', 'Which partitions are behind?', 'short', [
      ['weir_lag_records', '{{topic}}/{{partition}}'],
    ]),
  )
  .withPanel(
    promSeries('Watermark behind the clock', 'Does completeness keep up, by source?', 's', [
      ['time() - weir_watermark_seconds', '{{source}}'],
    ]),
  )
  .withPanel(
    promSeries('Time to commit', 'How long does it take to make an epoch durable?', 's', [
      ['histogram_quantile(0.5, sum by (le) (rate(weir_commit_seconds_bucket[$__rate_interval])))', 'half'],
      ['histogram_quantile(0.99, sum by (le) (rate(weir_commit_seconds_bucket[$__rate_interval])))', '99 of 100'],
    ]),
  )
  .withPanel(
    promSeries('Time to deliver', 'How long from the commit until ClickHouse and the topics have it?', 's', [
      ['histogram_quantile(0.5, sum by (le) (rate(weir_delivery_seconds_bucket[$__rate_interval])))', 'half'],
      ['histogram_quantile(0.99, sum by (le) (rate(weir_delivery_seconds_bucket[$__rate_interval])))', '99 of 100'],
    ]),
  )
  .withPanel(
    promSeries('Epochs under way', 'Does an epoch get stuck between reading, commit and delivery?', 'short', [
      ['weir_open_epoch - weir_committed_epoch', 'read, not committed'],
      ['weir_committed_epoch - weir_delivered_epoch', 'committed, not delivered'],
    ]),
  )
  .withPanel(
    promSeries('In flight', 'How much memory do uncommitted records take?', 'bytes', [
      ['weir_in_flight_bytes', 'in flight'],
    ]),
  )
  .withPanel(
    promSeries('Outbox', 'Which destination do rows wait for?', 'short', [['weir_outbox_rows', '{{destination}}']]),
  )
  .withPanel(
    promSeries('Rows out', 'How many rows does each destination take?', 'cps', [
      ['sum by (destination) (rate(weir_delivered_rows_total[$__rate_interval]))', '{{destination}}'],
    ]),
  )
  .withPanel(
    promSeries('CPU by operator', 'What does the work go into?', 'short', [
      ['topk(10, sum by (operator) (rate(weir_operator_cpu_seconds_total[$__rate_interval])))', '{{operator}}'],
    ]),
  )
  .withPanel(
    promSeries('Parked partitions', 'Does a partition wait for the schema registry?', 'short', [
      ['weir_parked_partitions', 'parked'],
    ]),
  )
  .withPanel(
    sqlTable(
      'Who holds back',
      'Which partition does each view wait for, and which are left out of its completeness?',
      `
SELECT view, topic, partition, state, holds_back, is_left_out, watermark, complete_through, lag_records, detail
FROM weir_progress_by_partition
ORDER BY view, topic, partition`,
      24,
    ),
  )
  .withPanel(
    sqlTable(
      'Ledger',
      'Did every record end somewhere, by source and partition?',
      `
SELECT source, topic, partition, sum(consumed) AS records, sum(accepted) AS accepted, sum(quarantined) AS quarantined,
    sum(duplicate + duplicate_differing) AS duplicates, sum(too_late + too_late_after_idle) AS too_late, sum(tombstone) AS tombstones
FROM weir_ledger
WHERE $__timeFilter(minute)
GROUP BY source, topic, partition
ORDER BY source, topic, partition`,
    ),
  )
  .withPanel(
    sqlTable(
      'Quarantine',
      'What was refused, and why?',
      `
SELECT reason, rule, field, count() AS records, max(kafka_time) AS last_at
FROM weir_quarantine
WHERE $__timeFilter(kafka_time)
GROUP BY reason, rule, field
ORDER BY records DESC
LIMIT 100`,
    ),
  );

const sdkTeam = board(
  'Weir: SDK team',
  'weir-sdk-team',
  'Which release sends bad data, since when, and how bad it is.',
)
  .refresh('30s')
  .time({ from: 'now-6h', to: 'now' })
  .withVariable(tenants())
  .withPanel(
    sqlTable(
      'Open alerts',
      'What is wrong now, with which release, and whose is it?',
      `
SELECT severity, owner, cause_kind, cause, sdk, sdk_version, app_version, last_good_release, reason, detail,
    round(affected_share * 100, 1) AS percent, opened_at, acknowledged_by, fingerprint
FROM weir_alerts
WHERE status != 'resolved'
ORDER BY indexOf(['critical', 'warning', 'info'], severity), opened_at`,
      24,
    ),
  )
  .withPanel(
    sqlTable(
      'Releases',
      'Which releases are out there, and how healthy is each beside the others?',
      `
SELECT tenant, sdk, sdk_version, app_version, first_seen_at, last_seen_at, events, refused, round(share * 100, 1) AS percent,
    round(refused_share * 100, 2) AS refused_percent, open_alerts
FROM weir_releases
WHERE tenant IN (\${tenant:singlequote})
ORDER BY refused_share DESC, events DESC`,
      24,
    ),
  )
  .withPanel(
    sqlSeries(
      'Refused, by release',
      'Which release is it, and does it grow?',
      'short',
      `
SELECT $__timeInterval(kafka_time) AS time, concat(sdk, ' ', sdk_version, ' / ', app_version) AS release, count() AS refused
FROM weir_quarantine
WHERE $__timeFilter(kafka_time) AND NOT startsWith(reason, 'too_late') AND tenant IN (\${tenant:singlequote})
GROUP BY time, release
ORDER BY time`,
    ),
  )
  .withPanel(
    promSeries('Rules broken', 'Which rules are broken, and how often?', 'cps', [
      ['sum by (source, rule, mode) (rate(weir_rule_broken_total[$__rate_interval]))', '{{rule}} ({{mode}})'],
    ]),
  )
  .withPanel(
    sqlTable(
      'Causes',
      'What exactly was found, where first, and in which releases?',
      `
SELECT rule, reason, field, any(expected) AS expected, topK(3)(found) AS found, count() AS records,
    arraySort(groupUniqArray(10)(concat(sdk, ' ', sdk_version))) AS releases,
    argMin(concat(topic, '/', toString(partition), '@', toString(offset)), kafka_time) AS first_place
FROM weir_quarantine
WHERE $__timeFilter(kafka_time) AND NOT startsWith(reason, 'too_late') AND tenant IN (\${tenant:singlequote})
GROUP BY fingerprint, rule, reason, field
ORDER BY records DESC
LIMIT 50`,
      24,
    ),
  )
  .withPanel(
    sqlTable(
      'Steps of alerts',
      'How did each alert go: opened, grew, resolved?',
      `
SELECT window_start, status, cause_kind, cause, affected_records, records, round(affected_share * 100, 1) AS percent, status_reason
FROM weir_alerts_history
WHERE $__timeFilter(window_start)
ORDER BY window_start DESC, fingerprint, revision DESC
LIMIT 200`,
    ),
  )
  .withPanel(
    sqlSeries(
      'Adoption',
      'How fast does each app version get among people?',
      'short',
      `
SELECT $__timeInterval(_event_time) AS time, concat(sdk, ' ', app_version) AS version, uniqExact(user_id) AS people
FROM events
WHERE $__timeFilter(_event_time) AND tenant IN (\${tenant:singlequote})
GROUP BY time, version
ORDER BY time`,
    ),
  );

for (const [name, builder] of [
  ['analyst', analyst],
  ['engineer', engineer],
  ['sdk-team', sdkTeam],
] as const) {
  writeFileSync(`${process.argv[2]}/${name}.json`, `${JSON.stringify(builder.build(), null, 2)}\n`);
}
