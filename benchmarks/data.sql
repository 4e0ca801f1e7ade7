-- Made-up messages for benchmarks. The rows are those that record() writes for these reports: tests/integration/
-- test_bench_data.py reads the bodies again and rebuilds the status rows, and nothing changes.

-- prepare: a number between 0 and 1 that depends on the message and the purpose only; what a network is like
create function pg_temp.chance(message bigint, purpose int) returns float8 language sql immutable parallel safe
  return (hashint8extended(message, purpose) & 1073741823)::float8 / 1073741824;

-- messages: those with numbers from first until before last, of so many in so many days until the end; bodies since raw
with drawn as (
  -- four of five are Infobip's; more by day than by night; the larger networks are used more
  select n, pg_temp.chance(n, 1) < 0.8 as infobip,
         %(end)s::timestamptz - %(days)s * interval '1 day' * (1 - n::float8 / %(rows)s) as even,
         %(end)s::timestamptz - %(days)s * interval '1 day' * (1 - (n / 500 * 500)::float8 / %(rows)s) as bulk_even,
         1 + floor(16 * power(pg_temp.chance(n, 2), 2))::int as network,
         pg_temp.chance(n, 3) as fate, pg_temp.chance(n, 4) as way, pg_temp.chance(n, 5) as history,
         exp(1.2 + 1.1 * sqrt(-2 * ln(1 - pg_temp.chance(n, 6))) * cos(2 * pi() * pg_temp.chance(n, 7))) as long_tail,
         pg_temp.chance(n, 8) as wait, pg_temp.chance(n, 9) < 0.05 as facebook
  from generate_series(%(first)s::bigint, %(last)s::bigint - 1) n
  offset 0  -- here and below: what is drawn once is not drawn again where it is used
), sent as (
  select n, infobip, fate, way, history, wait,
         case when not infobip then null when facebook then 'facebook' else 'sms' end as channel,
         date_trunc('milliseconds', even
           + 0.14 * sin(2 * pi() * extract(epoch from even) / 86400) * interval '1 day') as sent_at,
         -- of every other bulk by SMS the application forwards the answer, when it has sent it
         case when infobip and not facebook and pg_temp.chance(n / 500, 10) < 0.5 then date_trunc('milliseconds', bulk_even
           + 0.14 * sin(2 * pi() * extract(epoch from bulk_even) / 86400) * interval '1 day') + interval '80 ms' end as told_at,
         -- of Messaging Plus one message in twenty is sent by itself, the others in batches of some 50, 500 and 5,000
         case when pg_temp.chance(n, 11) < 0.05 then 1 when pg_temp.chance(n / 250, 12) < 0.15 then 250
              when pg_temp.chance(n / 2500, 13) < 0.35 then 2500 else 25000 end as stretch,
         (array['22801','26201','26202','23410','23415','20801','22210','21407','22802','23201','26203','40445','62130',
                '72405','310260','51010'])[network] as mcc_mnc,
         (array[0.0310,0.0620,0.0615,0.0385,0.0380,0.0520,0.0490,0.0470,0.0312,0.0655,0.0630,0.0021,0.1930,0.0185,
                0.0068,0.2210])[network] as price,
         case when network > 13 then 'USD' else 'EUR' end as currency,
         -- one network is poor, and ten days before the end was a bad day: slow, and every third message lost
         case when even::date = (%(end)s::timestamptz - interval '10 days')::date then 0.33
              when network = 13 then 0.25 else 0.07 end as failing,
         case when even::date = (%(end)s::timestamptz - interval '10 days')::date then 20 else 1 end * long_tail as took
  from drawn
  offset 0
), decided as (
  select *,
         case when fate < failing * (case when infobip then 0.55 else 0.9 end) then 9
              when fate < failing * 0.8 and infobip then 15
              when fate < failing and infobip then 6
              when fate < failing then 22         -- Messaging Plus: the centre still tries
              when fate < failing + 0.015 and infobip then 2
              when fate < failing + 0.02 then 7
              else 5 end as code
  from sent
  offset 0
), coded as (
  select d.*, c.status, c.is_final, c.group_id, c.group_name, c.name, c.description, c.error_group_id, c.error_group_name,
         c.error_code, c.error_name, c.error_description, c.error_permanent, c.receipt_code, c.receipt_description,
         case when infobip then lpad((hashint8extended(n, 14) & 9223372036854775807)::text, 20, '4') || '53'
              else md5(concat('message', stretch, '/', n / stretch))::uuid::text end as message_id,
         case when channel = 'facebook' then (900000000000000 + n)::text else '4479' || lpad(n::text, 9, '0') end as destination,
         case when infobip then lpad((n / 500)::text, 20, '2') else md5(concat('batch', stretch, '/', n / stretch))::uuid::text end as batch_id,
         sent_at + date_trunc('milliseconds', interval '1 second' * case code
           when 15 then 14400 when 6 then 0.2 + wait when 9 then 4 + 60 * wait else 0.2 + took end) as done_at
  from decided d
  join (values
    (5, 'delivered'::delivery_status, true, 3, 'DELIVERED', 'DELIVERED_TO_HANDSET', 'Message delivered to handset',
     0, 'OK', '0', 'NO_ERROR', 'No Error', false, '00', 'Successful'),
    (2, 'sent', false, 3, 'DELIVERED', 'DELIVERED_TO_OPERATOR', 'Message delivered to operator',
     0, 'OK', '0', 'NO_ERROR', 'No Error', false, null, null),
    (7, 'pending', false, 1, 'PENDING', 'PENDING_ENROUTE', 'Message sent to next instance',
     0, 'OK', '0', 'NO_ERROR', 'No Error', false, null, null),
    (9, 'undeliverable', true, 2, 'UNDELIVERABLE', 'UNDELIVERABLE_NOT_DELIVERED', 'Message sent not delivered',
     1, 'HANDSET_ERRORS', '1', 'EC_UNKNOWN_SUBSCRIBER', 'Unknown Subscriber', true, '4A', 'Unknown subscriber'),
    (15, 'expired', true, 4, 'EXPIRED', 'EXPIRED_EXPIRED', 'Message expired',
     1, 'HANDSET_ERRORS', '27', 'EC_ABSENT_SUBSCRIBER', 'Absent Subscriber', false, null, null),
    (6, 'rejected', true, 5, 'REJECTED', 'REJECTED_NETWORK', 'Network is forbidden',
     2, 'USER_ERRORS', '601', 'EC_ACC_NOT_2_WAY', 'Account not enabled for two-way', true, null, null),
    (22, 'undeliverable', false, null, null, null, null, null, null, null, null, null, null,
     '22', 'No response from the SME (e.g. phone switched off)')
  ) c (code, status, is_final, group_id, group_name, name, description, error_group_id, error_group_name, error_code,
       error_name, error_description, error_permanent, receipt_code, receipt_description) using (code)
  offset 0
), lived as materialized (
  -- before the report that decides: one in ten told first that the operator has it, one in a thousand that it is undeliverable
  select *, infobip and status = 'delivered' and history >= 0.9 as had_another, history >= 0.999 as conflict,
         sent_at + (done_at - sent_at) / 2 as other_done_at
  from coded
), reports as (
  select n, 3 * n as id, 0 as item, infobip, channel, message_id, destination, batch_id, sent_at, done_at, mcc_mnc, price, currency,
         status, is_final, code, group_id, group_name, name, description, error_group_id, error_group_name, error_code,
         error_name, error_description, error_permanent, receipt_code, receipt_description,
         case when not infobip and status = 'pending' then 'pull' when way < 0.93 then 'push'
              when way < 0.99 or channel is distinct from 'sms' then 'pull' else 'log' end::report_source as source,
         done_at + date_trunc('milliseconds', interval '1 second' * (case
           when way < 0.93 and (infobip or status <> 'pending') then 0.05 - ln(1 - wait) when way < 0.99 then 60 + 600 * wait
           else 600 + 3000 * wait end)) as received_at,
         had_another, conflict, other_done_at, told_at
  from lived
  union all
  select n, 3 * n - 1, 0, infobip, channel, message_id, destination, batch_id, sent_at,
         other_done_at, mcc_mnc, price, currency,
         case when conflict then 'undeliverable' else 'sent' end::delivery_status, conflict,
         case when conflict then 9 else 2 end, case when conflict then 2 else 3 end,
         case when conflict then 'UNDELIVERABLE' else 'DELIVERED' end,
         case when conflict then 'UNDELIVERABLE_NOT_DELIVERED' else 'DELIVERED_TO_OPERATOR' end,
         case when conflict then 'Message sent not delivered' else 'Message delivered to operator' end,
         error_group_id, error_group_name, error_code, error_name, error_description, error_permanent, null, null,
         'push', other_done_at + interval '40 ms', true, conflict, null, null
  from lived
  where had_another
  union all
  select n, 3 * min(n) over bulk - 2, row_number() over bulk - 1, infobip, channel, message_id, destination, batch_id,
         null, null, null, null, null, 'pending', false, 26, 1, 'PENDING', 'PENDING_ACCEPTED', 'Message sent to next instance',
         null, null, null, null, null, null, null, null, 'sent', told_at, null, null, null, null
  from lived
  where told_at is not null
  window bulk as (partition by n / 500 order by n)
), rows as materialized (
  select n, id, item, case when infobip then 'infobip' else 'messaging_plus' end as provider, infobip, message_id, destination,
         status, is_final, channel, batch_id,
         case when infobip then code::text else receipt_code end as status_code, case when infobip then name end as status_name,
         case when infobip then description else receipt_description end as status_description,
         case when infobip then error_code end as error_code,
         case when infobip then error_name end as error_name,
         case when infobip then error_permanent end as error_permanent,
         case when infobip then sent_at end as sent_at,
         case when infobip then date_trunc('milliseconds', done_at) end as done_at,
         case when infobip and source <> 'sent' then 1 end as segments, case when infobip and channel = 'sms' then mcc_mnc end as mcc_mnc,
         case when infobip then trim_scale(price) end as price, case when infobip then currency end as currency,
         case when channel = 'sms' and source <> 'sent' then 'Example' end as sender,
         case when channel = 'sms' and source not in ('log', 'sent') then 'order ' || n end as callback_data,
         source, received_at, group_id, group_name, error_group_id, error_group_name, error_description,
         had_another, conflict, other_done_at, told_at
  from reports
), history as (
  insert into delivery_report
  select received_at, sent_at, done_at, id, item, segments, source, status, is_final, false, error_permanent, false,
         provider, message_id, destination, channel, batch_id, status_code, status_name, status_description, error_code,
         error_name, mcc_mnc, price, currency, sender, callback_data, decode(md5(id::text), 'hex')
  from rows
), bodies as (
  insert into payload (id, received_at, provider, source, kind, channel, content_type, body)
  select id, received_at, provider, source, 'delivery_report',
         case when source = 'push' or not infobip then null else channel end,
         'application/json',
         convert_to(case when infobip then format(
           '{"results":[{"bulkId":"%%s","messageId":"%%s","to":"%%s",%%s"sentAt":"%%s","doneAt":"%%s","smsCount":1,%%s'
           '"channel":"%%s","price":{"pricePerMessage":%%s,"currency":"%%s"},"status":{"groupId":%%s,"groupName":"%%s",'
           '"id":%%s,"name":"%%s","description":"%%s"},"error":{"groupId":%%s,"groupName":"%%s","id":%%s,"name":"%%s",'
           '"description":"%%s","permanent":%%s}}]}',
           batch_id, message_id, destination, '"from":"' || sender || '",',
           to_char(sent_at, 'YYYY-MM-DD"T"HH24:MI:SS.MSTZHTZM'), to_char(done_at, 'YYYY-MM-DD"T"HH24:MI:SS.MSTZHTZM'),
           coalesce('"mccMnc":"' || mcc_mnc || '",', '') || coalesce('"callbackData":"' || callback_data || '",', ''),
           upper(channel), price, currency, group_id, group_name, status_code, status_name, status_description,
           error_group_id, error_group_name, error_code, error_name, error_description, error_permanent::text)
         when source = 'push' then format(
           '{"destination":"+%%s","delivered":%%s,"batchuuid":"%%s","messageuuid":"%%s","receiptInfo":{"code":"%%s",'
           '"description":"%%s"}}', destination, (status = 'delivered')::text, batch_id, message_id,
           status_code, status_description)
         else format(
           '{"counts":{"total":1,"delivered":%%s,"failed":%%s},"details":[{"destination":"+%%s","delivered":%%s,"failed":%%s,'
           '"batchuuid":"%%s","messageuuid":"%%s","info":%%s}]}',
           (status = 'delivered')::int, (status = 'undeliverable')::int, destination, (status = 'delivered')::text,
           (status = 'undeliverable')::text, batch_id, message_id,
           coalesce(format('{"code":"%%s","description":"%%s"}', status_code, status_description), 'null')) end, 'UTF8')
  from rows
  where received_at >= %(raw)s::timestamptz and source <> 'sent'
  union all
  select id, min(received_at), 'infobip', 'sent', 'sent', null, 'application/json',
         convert_to(format('{"bulkId":"%%s","messages":[%%s]}', min(batch_id), string_agg(format(
           '{"to":"%%s","status":{"groupId":%%s,"groupName":"%%s","id":%%s,"name":"%%s","description":"%%s"},"messageId":"%%s"}',
           destination, group_id, group_name, status_code, status_name, status_description, message_id), ',' order by item)), 'UTF8')
  from rows
  where received_at >= %(raw)s::timestamptz and source = 'sent'
  group by id
)
insert into message_status
select provider, channel, message_id, destination, batch_id, status, is_final, status_code, status_name, status_description,
       error_code, error_name, error_permanent, sent_at, done_at, segments, mcc_mnc, price, currency, sender,
       case when channel = 'sms' and (source <> 'log' or had_another) then 'order ' || n end, source::text,
       case when had_another then 2 else 1 end, had_another and conflict,
       least(received_at, case when had_another then other_done_at + interval '40 ms' end, told_at), received_at,
       case when had_another then greatest(received_at, other_done_at + interval '40 ms') else received_at end
from rows
where id = 3 * n;

-- surroundings: the batches that these messages are in, a pull of every store each minute, some of every batch, and the usual settings
with batches as (
  -- one batch in a thousand went to somebody of whom nothing is known
  insert into sent_batch (batch_id, source, destinations, is_named, learned_at, total, delivered, failed, pulls, pulled_at,
                          next_pull_at)
  select batch_id, case when is_named then 'push' else 'sent' end,
         case when is_named then '{}' else array['447700900000'] end, is_named, learned_at, messages, delivered, failed,
         1 + messages %% 3, learned_at + (1 + messages %% 3) * interval '10 minutes', null
  from (
    select batch_id, hashtext(batch_id) %% 1000 <> 0 as is_named, min(first_seen_at) as learned_at, count(*) as messages,
           count(*) filter (where status = 'delivered') as delivered,
           count(*) filter (where status = 'undeliverable') as failed
    from message_status where provider = 'messaging_plus' group by batch_id
  ) b
  returning batch_id, learned_at, pulls
), asked as (
  insert into pull (provider, endpoint, source, batch_id, params, started_at, finished_at, outcome, http_status, entries, fresh)
  select 'messaging_plus', '/batch', 'pull', batch_id, '{}', t, t + interval '200 ms', 'ok', 200, 1, 0
  from batches cross join lateral generate_series(1, pulls) n
  cross join lateral (values (learned_at + n * interval '10 minutes')) at (t)
), settings as (
  insert into setting values ('overdue_after', '10 minutes'), ('give_up_after', '72 hours'), ('reconcile_interval', '1 minute')
  on conflict do nothing
)
insert into pull (provider, endpoint, source, channel, params, started_at, finished_at, outcome, http_status, entries, fresh)
select s.provider, s.endpoint, s.source::report_source, s.channel, '{}', t, t + interval '200 ms', 'ok', 200, n %% 40, n %% 7
from generate_series(%(end)s::timestamptz - %(days)s * interval '1 day', %(end)s::timestamptz, interval '1 minute')
  with ordinality as minutes (t, n)
cross join (values ('infobip', '/sms/3/reports', 'pull', 'sms'), ('infobip', '/facebook/1/reports', 'pull', 'facebook'),
                   ('infobip', '/sms/3/logs', 'log', 'sms'))
  s (provider, endpoint, source, channel);
