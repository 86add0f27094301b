SET LOCAL ROLE tidemill_queue_owner;
DROP TABLE queue.workflow_step, queue.flow_state, queue.approval_key, queue.flow_worker, queue.cached_result, queue.erasure, queue.flow_resume, queue.flow_child, queue.flow_step, queue.inline_code, queue.token_key, queue.worker, queue.limit_key, queue.closed_workspace, queue.request_key, queue.live_job, queue.displaced_job, queue.log_chunk, queue.finished_job, queue.job CASCADE;
RESET ROLE;
