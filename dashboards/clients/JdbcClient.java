// The official JDBC driver against an address as against a server.
//
//     java -cp clickhouse-jdbc-all.jar JdbcClient.java 127.0.0.1 8123
//
// Each check prints a line; the first that fails ends the program with its error.

import java.math.BigDecimal;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.util.Properties;
import java.util.TreeSet;

public class JdbcClient {
    static final String DATABASE = "clients_jdbc";

    static void told(String what) {
        System.out.println("ok  " + what);
    }

    static void check(boolean holds, Object seen) {
        if (!holds) throw new AssertionError(seen);
    }

    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:clickhouse://" + arguments[0] + ":" + arguments[1] + "/";
        try (Connection first = DriverManager.getConnection(url + "default", new Properties()); Statement statement = first.createStatement()) {
            statement.execute("DROP DATABASE IF EXISTS " + DATABASE);
            statement.execute("CREATE DATABASE " + DATABASE);
            told("connected to " + first.getMetaData().getDatabaseProductName() + " " + first.getMetaData().getDatabaseProductVersion());
        }
        try (Connection connection = DriverManager.getConnection(url + DATABASE, new Properties())) {
            types(connection);
            writing(connection);
            metadata(connection);
            streaming(connection);
            errors(connection);
            try (Statement statement = connection.createStatement()) {
                statement.execute("DROP DATABASE " + DATABASE);
            }
        }
    }

    static void types(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("CREATE TABLE sales (at DateTime64(3, 'UTC'), shop LowCardinality(String), country Nullable(String), "
                + "amount Decimal(12, 2), people AggregateFunction(uniqExact, String), tags Array(String)) "
                + "ENGINE = ReplacingMergeTree ORDER BY (shop, at)");
            statement.execute("INSERT INTO sales SELECT toDateTime64('2026-01-05 10:00:00.123', 3, 'UTC') + number, "
                + "if(number % 2, 'alpine', 'bazaar'), if(number % 3, 'DE', NULL), number / 4, "
                + "initializeAggregation('uniqExactState', toString(number % 10)), ['a', toString(number)] FROM numbers(1000)");
        }
        String sql = "SELECT at, shop, country, amount, tags, number_of_people FROM (SELECT *, uniqExactMerge(people) OVER () AS number_of_people FROM sales) "
            + "WHERE shop = ? ORDER BY at LIMIT 2";
        try (PreparedStatement prepared = connection.prepareStatement(sql)) {
            prepared.setString(1, "alpine");
            try (ResultSet rows = prepared.executeQuery()) {
                check(rows.next(), "no row");
                LocalDateTime at = rows.getTimestamp("at", java.util.Calendar.getInstance(java.util.TimeZone.getTimeZone("UTC"))).toInstant().atOffset(ZoneOffset.UTC).toLocalDateTime();
                check(at.equals(LocalDateTime.of(2026, 1, 5, 10, 0, 1, 123_000_000)), at);
                check("alpine".equals(rows.getString(2)) && "DE".equals(rows.getString(3)), rows.getString(2) + rows.getString(3));
                check(new BigDecimal("0.25").compareTo(rows.getBigDecimal(4)) == 0, rows.getBigDecimal(4));
                check(rows.getLong(6) == 10, rows.getLong(6));
                check(rows.next() && rows.getString(3) == null && rows.wasNull(), "the second row's country isn't null");
                check(!rows.next(), "a third row");
            }
        }
        told("prepared statements, times, nulls, decimals, arrays, merged states");
    }

    static void writing(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("CREATE TABLE loaded (id UInt32, name String, score Nullable(Float64), at DateTime('UTC')) ENGINE = MergeTree ORDER BY id");
        }
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO loaded (id, name, score, at) VALUES (?, ?, ?, ?)")) {
            for (int id = 0; id < 1000; id++) {
                insert.setInt(1, id);
                insert.setString(2, "it's ✓ " + id);
                if (id % 2 == 0) insert.setDouble(3, id / 4.0); else insert.setNull(3, java.sql.Types.DOUBLE);
                insert.setTimestamp(4, Timestamp.valueOf("2026-01-05 10:00:00"));
                insert.addBatch();
            }
            check(insert.executeBatch().length == 1000, "a batch of another length");
        }
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery("SELECT count(), countIf(score IS NULL), min(name) FROM loaded")) {
            check(rows.next() && rows.getLong(1) == 1000 && rows.getLong(2) == 500 && rows.getString(3).equals("it's ✓ 0"), rows.getLong(1));
        }
        told("a batch of a thousand rows");
    }

    static void metadata(Connection connection) throws SQLException {
        TreeSet<String> tables = new TreeSet<>();
        try (ResultSet rows = connection.getMetaData().getTables(null, DATABASE, "%", null)) {
            while (rows.next()) tables.add(rows.getString("TABLE_NAME"));
        }
        check(tables.contains("sales") && tables.contains("loaded"), tables);
        TreeSet<String> columns = new TreeSet<>();
        try (ResultSet rows = connection.getMetaData().getColumns(null, DATABASE, "sales", "%")) {
            while (rows.next()) columns.add(rows.getString("COLUMN_NAME"));
        }
        check(columns.size() == 6 && columns.contains("people"), columns);
        told("tables and columns are found");
    }

    static void streaming(Connection connection) throws SQLException {
        Runtime.getRuntime().gc();
        long seen = 0, most = 0;
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery("SELECT number, toString(number) FROM numbers(5000000)")) {
            while (rows.next()) {
                if (++seen % 500_000 == 0) {
                    Runtime.getRuntime().gc();
                    most = Math.max(most, Runtime.getRuntime().totalMemory() - Runtime.getRuntime().freeMemory());
                }
            }
        }
        check(seen == 5_000_000 && most < (150L << 20), seen + " rows, " + (most >> 20) + " MiB");
        told("five million rows streamed, at most " + (most >> 20) + " MiB of heap in use");
    }

    static void errors(Connection connection) throws SQLException {
        String[][] wrong = {
            {"SELECT * FROM nowhere", "60"}, {"SELEC 1", "62"}, {"SELECT throwIf(1)", "395"},
            {"SELECT throwIf(number = 4000000) FROM numbers(5000000)", "395"},
        };
        for (String[] of : wrong) {
            try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(of[0])) {
                while (rows.next()) { }
                throw new AssertionError(of[0] + ": no error");
            } catch (SQLException | RuntimeException error) {
                String text = "";
                for (Throwable cause = error; cause != null; cause = cause.getCause()) text += " " + cause.getMessage() + (cause instanceof SQLException sql ? " code " + sql.getErrorCode() : "");
                check(text.contains("Code: " + of[1]) || text.contains("code " + of[1]), of[0] + ":" + text);
            }
        }
        told("errors carry the server's code, in the middle of an answer, too");
    }
}
