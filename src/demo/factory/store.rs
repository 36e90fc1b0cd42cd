//! The factory's data: four tables in one SQLite file, the names and columns of the real application.
//!
//! Each table keeps its newest rows only, so that a demo that runs for weeks fills no disk.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};

/// One statement each: products, scripts, videos, posts, and for each what keeps it small.
const SCHEMA: &[&str] = &[
    "CREATE TABLE products (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL,
        created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    "CREATE TABLE scripts (id INTEGER PRIMARY KEY AUTOINCREMENT, product_id INTEGER NOT NULL, text TEXT NOT NULL,
        created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    "CREATE TABLE videos (id INTEGER PRIMARY KEY AUTOINCREMENT, script_id INTEGER NOT NULL, status TEXT NOT NULL,
        created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    "CREATE TABLE social_media_posts (id INTEGER PRIMARY KEY AUTOINCREMENT, video_id INTEGER NOT NULL,
        platform TEXT NOT NULL, status TEXT NOT NULL, created_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)",
    "CREATE TRIGGER keep_products AFTER INSERT ON products
        BEGIN DELETE FROM products WHERE id <= NEW.id - 5000; END",
    "CREATE TRIGGER keep_scripts AFTER INSERT ON scripts
        BEGIN DELETE FROM scripts WHERE id <= NEW.id - 5000; END",
    "CREATE TRIGGER keep_videos AFTER INSERT ON videos
        BEGIN DELETE FROM videos WHERE id <= NEW.id - 5000; END",
    "CREATE TRIGGER keep_posts AFTER INSERT ON social_media_posts
        BEGIN DELETE FROM social_media_posts WHERE id <= NEW.id - 5000; END",
];

/// What is there before the first visitor comes; eight, so that the tenth, which the AI service refuses, is near.
const FIRST_PRODUCTS: [&str; 8] =
    ["Standing desk", "Espresso machine", "Trail shoes", "Headphones", "Cast-iron pan", "Tent", "Kettle", "Backpack"];

const PLATFORMS: [&str; 3] = ["instagram", "tiktok", "youtube"];
/// Every seventh video is refused by the last platform, inside an answer that is 200.
const REFUSED_BY_PLATFORM_EVERY: i64 = 7;

/// Something worth a video.
#[derive(Serialize)]
pub(super) struct Product {
    pub(super) id: i64,
    pub(super) name: String,
}

/// What a video will say.
#[derive(Serialize)]
pub(super) struct Script {
    pub(super) id: i64,
    pub(super) product_id: i64,
    pub(super) text: String,
}

/// A rendering of a script.
#[derive(Serialize)]
pub(super) struct Video {
    pub(super) id: i64,
    pub(super) script_id: i64,
    pub(super) status: String,
}

/// What became of a video on one platform.
#[derive(Serialize)]
pub(super) struct Publication {
    pub(super) platform: &'static str,
    pub(super) status: &'static str,
}

/// How many rows there are.
#[derive(Serialize)]
pub(super) struct Counts {
    pub(super) products: i64,
    pub(super) videos: i64,
    pub(super) social_media_posts: i64,
}

/// A cheap handle to the file.
#[derive(Clone)]
pub(super) struct Store(SqlitePool);

type Stored<T> = Result<T, sqlx::Error>;

impl Store {
    /// Makes the file with its tables and first products.
    pub(super) async fn create(file: &Path) -> Stored<Self> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            // readers such as the sidecar's check never wait for a writer
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(Duration::from_secs(2));
        let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await?;
        for statement in SCHEMA {
            sqlx::query(*statement).execute(&pool).await?;
        }
        let store = Self(pool);
        for name in FIRST_PRODUCTS {
            store.add_product(name).await?;
        }
        Ok(store)
    }

    pub(super) async fn products(&self, limit: i64) -> Stored<Vec<Product>> {
        let rows: Vec<(i64, String)> = sqlx::query_as("SELECT id, name FROM products ORDER BY id DESC LIMIT ?")
            .bind(limit)
            .fetch_all(&self.0)
            .await?;
        Ok(rows.into_iter().map(|(id, name)| Product { id, name }).collect())
    }

    pub(super) async fn product(&self, id: i64) -> Stored<Option<Product>> {
        let row: Option<(String,)> =
            sqlx::query_as("SELECT name FROM products WHERE id = ?").bind(id).fetch_optional(&self.0).await?;
        Ok(row.map(|(name,)| Product { id, name }))
    }

    pub(super) async fn add_product(&self, name: &str) -> Stored<Product> {
        let done = sqlx::query("INSERT INTO products (name) VALUES (?)").bind(name).execute(&self.0).await?;
        Ok(Product { id: done.last_insert_rowid(), name: name.to_owned() })
    }

    pub(super) async fn script_exists(&self, id: i64) -> Stored<bool> {
        let row: Option<(i64,)> =
            sqlx::query_as("SELECT id FROM scripts WHERE id = ?").bind(id).fetch_optional(&self.0).await?;
        Ok(row.is_some())
    }

    pub(super) async fn add_script(&self, product: &Product) -> Stored<Script> {
        let text = format!("Have you seen {}?", product.name);
        let done = sqlx::query("INSERT INTO scripts (product_id, text) VALUES (?, ?)")
            .bind(product.id)
            .bind(&text)
            .execute(&self.0)
            .await?;
        Ok(Script { id: done.last_insert_rowid(), product_id: product.id, text })
    }

    pub(super) async fn video(&self, id: i64) -> Stored<Option<Video>> {
        let row: Option<(i64, String)> = sqlx::query_as("SELECT script_id, status FROM videos WHERE id = ?")
            .bind(id)
            .fetch_optional(&self.0)
            .await?;
        Ok(row.map(|(script_id, status)| Video { id, script_id, status }))
    }

    /// The renderer of a demo takes no time: the video is complete at once.
    pub(super) async fn add_video(&self, script_id: i64) -> Stored<Video> {
        let status = "completed";
        let done = sqlx::query("INSERT INTO videos (script_id, status) VALUES (?, ?)")
            .bind(script_id)
            .bind(status)
            .execute(&self.0)
            .await?;
        Ok(Video { id: done.last_insert_rowid(), script_id, status: status.into() })
    }

    /// Publishes on every platform, and keeps all results or none.
    pub(super) async fn publish(&self, video_id: i64) -> Stored<Vec<Publication>> {
        let refused = video_id % REFUSED_BY_PLATFORM_EVERY == 0;
        let last = PLATFORMS.len() - 1;
        let mut transaction = self.0.begin().await?;
        let mut results = Vec::with_capacity(PLATFORMS.len());
        for (at, platform) in PLATFORMS.into_iter().enumerate() {
            let status = if refused && at == last { "failed" } else { "published" };
            sqlx::query("INSERT INTO social_media_posts (video_id, platform, status) VALUES (?, ?, ?)")
                .bind(video_id)
                .bind(platform)
                .bind(status)
                .execute(&mut *transaction)
                .await?;
            results.push(Publication { platform, status });
        }
        transaction.commit().await?;
        Ok(results)
    }

    pub(super) async fn counts(&self) -> Stored<Counts> {
        let (products, videos, social_media_posts) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM products), (SELECT count(*) FROM videos),
                (SELECT count(*) FROM social_media_posts)",
        )
        .fetch_one(&self.0)
        .await?;
        Ok(Counts { products, videos, social_media_posts })
    }

    /// Closes the file, so that its folder can be removed.
    pub(super) async fn close(&self) {
        self.0.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_video_is_published_on_every_platform_and_each_seventh_fails_on_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("factory.db")).await.unwrap();
        let script = store.add_script(&store.add_product("Lamp").await.unwrap()).await.unwrap();
        for id in 1..=7 {
            assert_eq!(store.add_video(script.id).await.unwrap().id, id);
        }
        let statuses =
            |results: Vec<Publication>| results.iter().map(|result| result.status).collect::<Vec<_>>().join(" ");
        assert_eq!(statuses(store.publish(6).await.unwrap()), "published published published");
        assert_eq!(statuses(store.publish(7).await.unwrap()), "published published failed");
        let counts = store.counts().await.unwrap();
        assert_eq!((counts.products, counts.videos, counts.social_media_posts), (9, 7, 6));
    }

    #[tokio::test]
    async fn a_table_keeps_its_newest_rows_only() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::create(&folder.path().join("factory.db")).await.unwrap();
        sqlx::query("INSERT INTO products (id, name) VALUES (9000, 'far later')").execute(&store.0).await.unwrap();
        let left = store.products(100).await.unwrap();
        assert_eq!(left.iter().map(|product| product.id).collect::<Vec<_>>(), [9000]);
    }
}
