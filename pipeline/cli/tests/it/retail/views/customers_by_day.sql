SELECT
    toStartOfDay(InvoiceDate) AS day,
    uniqExact(CustomerID) AS customers,
    uniqCombined64(InvoiceNo) AS invoices,
    min(UnitPrice) AS cheapest,
    max(UnitPrice) AS dearest
FROM sales
GROUP BY day
