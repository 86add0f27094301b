-- name: resume
SELECT said, ended, reply_to FROM queue.resume_workflow($1)
