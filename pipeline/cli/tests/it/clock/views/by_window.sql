SELECT
    toStartOfInterval(at, INTERVAL 5 SECOND) AS window_start,
    shop,
    count() AS sales,
    sum(amount) AS revenue,
    uniqExact(user) AS users
FROM sales
GROUP BY window_start, shop
