"""The application whose own cost is measured: one route that answers with 1 KiB of JSON."""

from fastapi import FastAPI

app = FastAPI()
PRODUCTS = [{"id": number, "name": f"product {number}", "price": 17.5} for number in range(20)]


@app.get("/api/v1/products")
async def products(page: int = 1) -> dict:
    """About 1 KiB, made anew for each request as an application would."""
    return {"page": page, "items": PRODUCTS}
