-- columns first_epoch, weir_version
SELECT min(epoch), (SELECT any(weir_version) FROM weir_versions__rows) FROM weir_epochs__rows
