/**
 * A process that asks its rate limiter again and again, by a plan of rates: spawned by `limit-fleet.ts`, which reads what it
 * writes. Times are ms since 1970 with fractions, comparable between the processes of one machine.
 */
import { RateLimiter } from '../../src/limits/rate-limiter.ts'
import { takeAll } from '../../src/limits/takings.ts'
import { parseRateLimits } from '../../src/policies/rate-limit-rules.ts'
import { RedisLinks } from '../../src/redis/connection.ts'
import { SYSTEM_CLOCK } from '../../src/runtime/clock.ts'
import type { LimitProcessPlan } from './limit-fleet.ts'
import { SILENT_TELEMETRY } from './telemetry.ts'

const plan: LimitProcessPlan = JSON.parse(process.argv[2] ?? '')
const nowMs = (): number => performance.timeOrigin + performance.now()

const links = new RedisLinks({
  ...{ address: { url: plan.url }, telemetry: SILENT_TELEMETRY, random: Math.random },
  ...{ blockMs: 500, commandTimeoutMs: 3000 },
})
const link = links.open('command')
await link.whenReady(10_000)
const limiter = new RateLimiter({
  ...{ limits: parseRateLimits(plan.rule, 'rule'), link, clock: SYSTEM_CLOCK, telemetry: SILENT_TELEMETRY },
})
await limiter.start()

const subject = { tenant: 'acme', credential: 'key' }
const requestsMax = plan.steps.reduce((sum, { perS, ms }) => sum + Math.ceil((perS * ms) / 1000) + 1, 0)
const asked = new Float64Array(requestsMax)
const admitted = new Float64Array(requestsMax)
let [askedCount, admittedCount, waitedCount] = [0, 0, 0]
const pending: Promise<void>[] = []

function ask(): void {
  asked[askedCount++] = nowMs()
  const refused = takeAll(limiter.claims('view.read', undefined, subject), 1)
  if (refused === undefined) admitted[admittedCount++] = nowMs()
  if (!(refused instanceof Promise)) return
  waitedCount += 1
  pending.push(
    refused.then((late) => {
      if (late === undefined) admitted[admittedCount++] = nowMs()
    }),
  )
}

while (nowMs() < plan.startMs) await Bun.sleep(1)
let startMs = plan.startMs
for (const { perS, ms } of plan.steps) {
  let sent = 0
  for (let elapsedMs = nowMs() - startMs; elapsedMs < ms; elapsedMs = nowMs() - startMs) {
    for (const due = Math.floor((elapsedMs * perS) / 1000); sent < due; sent++) ask()
    await Bun.sleep(1)
  }
  startMs += ms
}
await Promise.all(pending)
const [policy] = limiter.policies
await limiter.stop()
links.closeAll()
await Bun.write(`${plan.output}.asked`, asked.subarray(0, askedCount))
await Bun.write(`${plan.output}.admitted`, admitted.subarray(0, admittedCount))
const { calls = 0, unchecked = 0 } = policy?.tally ?? {}
await Bun.write(`${plan.output}.json`, JSON.stringify({ waited: waitedCount, calls, unchecked }))
