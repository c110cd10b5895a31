/** Every scenario, in the order in which they run. */
import type { Scenario } from './scenario.ts'
import { backlog } from './scenarios/backlog.ts'
import { blackhole } from './scenarios/blackhole.ts'
import { clientKill } from './scenarios/client-kill.ts'
import { cron } from './scenarios/cron.ts'
import { failover, failoverEverysec } from './scenarios/failover.ts'
import { flush } from './scenarios/flush.ts'
import { idempotency } from './scenarios/idempotency.ts'
import { kills } from './scenarios/kills.ts'
import { noFault } from './scenarios/no-fault.ts'
import { ordered } from './scenarios/ordered.ts'
import { diskFull, oom } from './scenarios/out-of-room.ts'
import { overload, overloadAge } from './scenarios/overload.ts'
import { poison } from './scenarios/poison.ts'
import { recovery } from './scenarios/recovery.ts'
import { redisPause, redisRestart } from './scenarios/redis-away.ts'
import { redisKills, redisKillsEverysec } from './scenarios/redis-kills.ts'
import { replies } from './scenarios/replies.ts'
import { rolling } from './scenarios/rolling.ts'
import { stall } from './scenarios/stall.ts'
import { tenants } from './scenarios/tenants.ts'
import { views } from './scenarios/views.ts'

export const SCENARIOS: readonly Scenario[] = [
  noFault,
  kills,
  ordered,
  recovery,
  redisKills,
  redisKillsEverysec,
  replies,
  views,
  blackhole,
  redisRestart,
  redisPause,
  rolling,
  poison,
  stall,
  cron,
  clientKill,
  flush,
  oom,
  diskFull,
  failover,
  failoverEverysec,
  backlog,
  overload,
  overloadAge,
  idempotency,
  tenants,
]
