-- How large are the tables, in rows, bytes and parts?
-- for engineers
-- reads system.parts
SELECT table, sum(rows) AS rows, formatReadableSize(sum(bytes_on_disk)) AS size, count() AS parts,
    round(sum(data_uncompressed_bytes) / sum(data_compressed_bytes), 1) AS compression
FROM system.parts
WHERE active AND database = currentDatabase()
GROUP BY table
ORDER BY sum(bytes_on_disk) DESC, table
