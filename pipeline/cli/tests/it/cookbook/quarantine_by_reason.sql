-- columns reason, records, causes
SELECT reason, length(groupArray(offset)) AS n, length(groupUniqArray(fingerprint)) FROM weir_quarantine__rows FINAL GROUP BY reason ORDER BY n DESC, reason
