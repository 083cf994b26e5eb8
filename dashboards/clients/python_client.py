"""clickhouse-connect, with pandas, Arrow and SQLAlchemy, against an address as against a server.

    python python_client.py 127.0.0.1 8123

Each check prints a line; the first that fails ends the program with its error.
"""

import resource
import sys
from decimal import Decimal

import clickhouse_connect
import pandas as pd
from clickhouse_connect.driver.exceptions import DatabaseError
from sqlalchemy import create_engine, inspect, text

HOST, PORT = sys.argv[1], int(sys.argv[2])
DATABASE = "clients_python"


def told(what):
    print(f"ok  {what}", flush=True)


client = clickhouse_connect.get_client(host=HOST, port=PORT)
client.command(f"DROP DATABASE IF EXISTS {DATABASE}")
client.command(f"CREATE DATABASE {DATABASE}")
client.close()
client = clickhouse_connect.get_client(host=HOST, port=PORT, database=DATABASE)
told(f"connected to {client.server_version}, settings of the session known: {len(client.server_settings) > 0}")

client.command(
    "CREATE TABLE sales (at DateTime64(3, 'UTC'), shop LowCardinality(String), country Nullable(String), amount Decimal(12, 2), "
    "people AggregateFunction(uniqExact, String), tags Array(String), props Map(String, String)) "
    "ENGINE = ReplacingMergeTree ORDER BY (shop, at)"
)
client.command(
    "INSERT INTO sales SELECT toDateTime64('2026-01-05 10:00:00.123', 3, 'UTC') + number, if(number % 2, 'alpine', 'bazaar'), "
    "if(number % 3, 'DE', NULL), number / 4, initializeAggregation('uniqExactState', toString(number % 10)), "
    "['a', toString(number)], map('k', toString(number)) FROM numbers(1000)"
)
rows = client.query("SELECT shop, sum(amount), uniqExactMerge(people) FROM sales GROUP BY shop ORDER BY shop").result_rows
assert rows == [("alpine", Decimal("62500.00"), 5), ("bazaar", Decimal("62375.00"), 5)], rows
told("decimals and merged states")

row = client.query("SELECT * EXCEPT people FROM sales WHERE shop = {shop:String} ORDER BY at LIMIT 1", parameters={"shop": "alpine"}).first_row
assert row[1:] == ("alpine", "DE", Decimal("0.25"), ["a", "1"], {"k": "1"}) and row[0].microsecond == 123000, row
told("parameters, times, nulls, arrays, maps")

frame = client.query_df("SELECT shop, at, amount, country FROM sales ORDER BY at")
assert len(frame) == 1000 and frame["country"].isna().sum() == 334 and frame["at"][0] == pd.Timestamp("2026-01-05 10:00:00.123"), frame.dtypes
told("pandas: query_df")

client.command("CREATE TABLE loaded (id UInt32, name String, score Nullable(Float64), day Date) ENGINE = MergeTree ORDER BY id")
made = pd.DataFrame({"id": range(50_000), "name": [f"n{i}" for i in range(50_000)], "score": [None if i % 5 else i / 2 for i in range(50_000)],
                     "day": pd.Timestamp("2026-01-05")})
client.insert_df("loaded", made)
assert client.query("SELECT count(), countIf(score IS NULL), max(name), min(day) FROM loaded").first_row[:3] == (50_000, 40_000, "n9999")
told("pandas: insert_df")

table = client.query_arrow("SELECT id, name FROM loaded ORDER BY id LIMIT 10")
assert table.num_rows == 10 and table.column("id").to_pylist() == list(range(10))
told("Arrow: query_arrow")

client.insert("loaded", [[1_000_000, "späte ✓", None, made["day"][0].date()]], column_names=["id", "name", "score", "day"])
assert client.query("SELECT name FROM loaded WHERE id = 1000000").first_row == ("späte ✓",)
told("rows: insert")

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
seen = 0
with client.query_row_block_stream("SELECT number, toString(number) FROM numbers(3000000)", settings={"max_block_size": 65536}) as stream:
    for block in stream:
        seen += len(block)
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
assert seen == 3_000_000 and grown < 150, (seen, grown)
told(f"three million rows streamed, {grown:.0f} MiB more in the client")

for sql, code in [("SELECT * FROM nowhere", 60), ("SELEC 1", 62), ("SELECT throwIf(number = 900000) FROM numbers(1000000)", 395)]:
    try:
        client.query(sql)
        raise SystemExit(f"{sql}: no error")
    except DatabaseError as error:
        assert f"{code}" in str(error), error
told("errors carry the server's code, in the middle of an answer, too")

try:
    client.query("SELECT count() FROM numbers(100000000000)", settings={"max_execution_time": 1})
    raise SystemExit("no limit")
except DatabaseError as error:
    assert "TIMEOUT_EXCEEDED" in str(error) or "159" in str(error), error
told("limits are kept")

engine = create_engine(f"clickhousedb://{HOST}:{PORT}/{DATABASE}")
with engine.connect() as connection:
    counted = connection.execute(text("SELECT shop, count() AS n FROM sales GROUP BY shop ORDER BY shop")).fetchall()
    assert [tuple(row) for row in counted] == [("alpine", 500), ("bazaar", 500)], counted
    bound = connection.execute(text("SELECT count() FROM sales WHERE shop = :shop"), {"shop": "alpine"}).scalar()
    assert bound == 500
told("SQLAlchemy: statements, bound values")

inspector = inspect(engine)
assert set(inspector.get_table_names(schema=DATABASE)) >= {"sales", "loaded"}, inspector.get_table_names(schema=DATABASE)
columns = {column["name"]: str(column["type"]) for column in inspector.get_columns("sales", schema=DATABASE)}
assert set(columns) == {"at", "shop", "country", "amount", "people", "tags", "props"}, columns
told("SQLAlchemy: tables and columns are found")

frame = pd.read_sql(text("SELECT shop, sum(amount) AS revenue FROM sales GROUP BY shop ORDER BY shop"), engine)
assert frame["revenue"].tolist() == [Decimal("62500.00"), Decimal("62375.00")], frame
told("pandas: read_sql over SQLAlchemy")

client.command(f"DROP DATABASE {DATABASE}")
