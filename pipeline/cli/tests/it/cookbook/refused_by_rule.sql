-- columns rule, sdk, sdk_version, app_version, records
SELECT 'amounts_are_positive', 'android', '4.2.0', '7.1', count() FROM weir_quarantine__rows FINAL WHERE detail = 'amounts_are_positive'
