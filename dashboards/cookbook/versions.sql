-- Which versions of rules, views and code were in force, and since when?
-- for engineers
-- reads weir_versions
SELECT first_at, first_epoch, substring(pipeline_version, 1, 12) AS version, weir_version
FROM weir_versions
ORDER BY first_epoch
