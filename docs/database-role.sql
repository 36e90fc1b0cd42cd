-- The least that the sidecar needs of the application's database; run it there as its owner or as a superuser.
-- Two connections read statistics and rows, the health check keeps a third, and one that broke off may linger.
CREATE ROLE cf_sidecar LOGIN PASSWORD 'CHANGE-ME' CONNECTION LIMIT 4;
-- Without it the sessions and statements of other roles are hidden, without an error.
GRANT pg_monitor TO cf_sidecar;
-- Columns, not tables: no content of a row can be read.
GRANT SELECT (id, created_at) ON products TO cf_sidecar;
GRANT SELECT (id, status, created_at) ON videos, social_media_posts TO cf_sidecar;
