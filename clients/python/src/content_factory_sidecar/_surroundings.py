"""What a task runs in: the current span, and the current task of Celery.

Looks only at what the application has imported itself: it would be odd to pay for an import that nobody else uses.
"""

from __future__ import annotations

import sys
from typing import Optional


def traceparent() -> Optional[str]:
    """The current span of OpenTelemetry as W3C Trace Context writes it; none without one."""
    try:
        trace = sys.modules.get("opentelemetry.trace")
        if trace is None:
            return None
        context = trace.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags) & 0xFF:02x}"
    except Exception:
        return None


def celery_task() -> Optional[str]:
    """The id of the task of Celery that runs this code; none outside of one."""
    try:
        state = sys.modules.get("celery._state")
        task = None if state is None else state.get_current_task()
        identity = None if task is None else task.request.id
        return identity if isinstance(identity, str) else None
    except Exception:
        return None
