/**
 * Between the processes and Redis, replies and requests get lost, and connections that a process has given up are still
 * served by Redis. Whatever was unknown must come out as stored once and done once, and nothing may stay pending.
 */
import { judge } from '../judge.ts'
import { type LossKind, RedisProxy } from '../proxy.ts'
import type { Scenario } from '../scenario.ts'
import { alarmsRaised } from '../verdicts.ts'
import { mixedType, Workload } from '../workload.ts'

/** How often each kind of request loses its reply, and how often it is lost itself. */
const LOSSES: Readonly<Record<string, { readonly reply: number; readonly request: number }>> = {
  'append-keyed': { reply: 0.02, request: 0.01 },
  settle: { reply: 0.01, request: 0.005 },
  xreadgroup: { reply: 0.004, request: 0.001 },
  'append-once': { reply: 0.05, request: 0.02 },
  'commit-views': { reply: 0.02, request: 0.01 },
  promote: { reply: 0.01, request: 0.005 },
}
/** Of the lost replies of reads: as many leave a connection behind that Redis goes on serving. */
const HALF_OPEN_SHARE = 0.5
/** Each kind is lost at least once, however short the run. */
const FIRST_REQUESTS = 20

export const replies: Scenario = {
  name: 'replies',
  promise:
    'replies to append, read, settle, relay and view commits lost, half-open readers: one entry and one effect each',
  full: { commands: 75_000, seconds: 60, workerKills: 0, pauses: 0, redisKills: 0, rounds: 0 },
  async run(arena) {
    const workload = new Workload({ rows: arena.size.commands, keys: 1000, bodyRows: 50, typeOf: mixedType })
    const random = arena.random.fork('losses')
    const seen = new Map<string, number>()
    let proxy: RedisProxy | undefined
    await arena.open({
      workload,
      workers: 3,
      redisUrl: async (redis) => {
        const opened = await RedisProxy.open(redis.port)
        proxy = opened
        arena.onClose(() => opened.close())
        return opened.url
      },
    })
    const lose = (request: string): LossKind | undefined => {
      const odds = LOSSES[request]
      if (odds === undefined) return undefined
      const count = (seen.get(request) ?? 0) + 1
      seen.set(request, count)
      const draw = random.next()
      const isReply = draw < odds.reply || count === FIRST_REQUESTS
      if (!isReply) return draw < odds.reply + odds.request ? 'request' : undefined
      const isHalfOpen =
        request === 'xreadgroup' && (random.next() < HALF_OPEN_SHARE || count === FIRST_REQUESTS)
      return isHalfOpen ? 'half-open' : 'reply'
    }
    if (proxy !== undefined) proxy.loss = lose
    await arena.produce()
    await arena.guard(Bun.sleep(1000))
    if (proxy !== undefined) proxy.loss = () => undefined
    await arena.quiet()
    const account = await arena.count()
    judge(arena, account)
    const lost = proxy?.lost ?? new Map<string, number>()
    for (const request of Object.keys(LOSSES)) {
      const kind = request === 'xreadgroup' ? 'half-open' : 'reply'
      arena.check(lost.has(`${kind} ${request}`), `no reply to ${request} was lost: nothing was tested`)
    }
    Object.assign(arena.details, { losses: Object.fromEntries(lost), alarms: alarmsRaised(arena.fleet) })
  },
}
