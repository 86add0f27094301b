-- What the bus publishes: say a message, forget it once it is confirmed, take over what a dead process left behind.
SET ROLE tidemill_bus_owner;

-- Write one message into the outbox and return what the sender needs to publish it right after its commit.
-- Only the services that the catalog names may say a type: SECURITY DEFINER functions of other schemas call this too,
-- so it is the session's login that counts.
CREATE OR REPLACE FUNCTION bus.say(p_type text, p_key text, p_data json, p_traceparent text) RETURNS json
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    v_exchange text;
    v_message  uuid := gen_random_uuid();
    v_service  text := substr(session_user, length('tidemill_') + 1);
    v_body     text;
    v_id       bigint;
BEGIN
    SELECT k.exchange INTO v_exchange FROM bus.kind k WHERE k.type = p_type AND v_service = ANY (k.says);
    IF NOT FOUND THEN
        RAISE EXCEPTION '% may not say %', session_user, p_type USING ERRCODE = 'insufficient_privilege';
    END IF;
    v_body := json_build_object(
        'id', v_message,
        'source', '/tidemill/' || v_service,
        'type', p_type,
        'time', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        'data', p_data,
        'specversion', '1.0',
        'datacontenttype', 'application/json'
    )::text;
    INSERT INTO bus.outbox (said_by, exchange, key, message_id, body, traceparent)
    VALUES (session_user, v_exchange, p_key, v_message, v_body, p_traceparent)
    RETURNING id INTO v_id;
    RETURN json_build_object(
        'id', v_id, 'exchange', v_exchange, 'key', p_key, 'message_id', v_message, 'body', v_body, 'traceparent', p_traceparent);
END
$$;

-- Say a list of [{"type", "key", "data", "traceparent"}] and return them as bus.say() does, in order; a message without a
-- trace of its own belongs to the one that is given.
CREATE OR REPLACE FUNCTION bus.say_all(p_messages json, p_traceparent text) RETURNS json
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(json_agg(bus.say(m ->> 'type', m ->> 'key', m -> 'data',
                                     coalesce(m ->> 'traceparent', p_traceparent))), '[]'::json)
    FROM json_array_elements(p_messages) m
$$;

-- The broker has confirmed these. Everybody may only forget what they said; the scheduler relays for the dead.
CREATE OR REPLACE FUNCTION bus.forget(p_ids bigint[]) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM bus.outbox WHERE id = ANY (p_ids) AND (said_by = session_user OR session_user = 'tidemill_scheduler')
$$;

-- Messages whose sender has not published them in time, taken for a while so that two relays do not both publish them.
CREATE OR REPLACE FUNCTION bus.take_stranded(p_older_than interval, p_limit integer) RETURNS json
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH stranded AS (
        SELECT o.id FROM bus.outbox o
        WHERE o.said_at < clock_timestamp() - p_older_than
          AND (o.taken_until IS NULL OR o.taken_until < clock_timestamp())
        ORDER BY o.id LIMIT p_limit FOR UPDATE SKIP LOCKED
    ), taken AS (
        UPDATE bus.outbox o SET taken_until = clock_timestamp() + interval '5 seconds'
        FROM stranded s WHERE o.id = s.id
        RETURNING o.id, o.exchange, o.key, o.message_id, o.body, o.traceparent
    )
    SELECT coalesce(json_agg(row_to_json(t) ORDER BY t.id), '[]'::json) FROM taken t
$$;

GRANT USAGE ON SCHEMA bus TO tidemill_api, tidemill_scheduler, tidemill_worker,
    tidemill_queue_owner, tidemill_platform_owner;
GRANT EXECUTE ON FUNCTION bus.say(text, text, json, text) TO tidemill_queue_owner, tidemill_platform_owner;
GRANT EXECUTE ON FUNCTION bus.say_all(json, text) TO tidemill_api, tidemill_scheduler, tidemill_worker, tidemill_queue_owner;
GRANT EXECUTE ON FUNCTION bus.forget(bigint[]) TO tidemill_api, tidemill_scheduler, tidemill_worker;
GRANT EXECUTE ON FUNCTION bus.take_stranded(interval, integer) TO tidemill_scheduler, tidemill_queue_owner;

RESET ROLE;
