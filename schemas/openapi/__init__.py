"""The HTTP interface as an OpenAPI 3.1 document, made from the types that the edge and the reader take and give."""

from schemas.openapi.document import PATH, document

__all__ = ["PATH", "document"]
