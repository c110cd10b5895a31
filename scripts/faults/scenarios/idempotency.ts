/**
 * The same commands under the same keys from many producers at once, through two API processes, while replies get lost on both
 * sides of them. Nobody works meanwhile, so that every entry can be counted; afterwards each key is posted once more.
 */
import { judge } from '../judge.ts'
import { KeyedPosts } from '../keyed-posts.ts'
import { type LossKind, RedisProxy } from '../proxy.ts'
import type { Scenario } from '../scenario.ts'
import { plainType, Workload } from '../workload.ts'

const PRODUCERS = 8
const KEYS_AT_ONCE = 12
const HANG_UP_SHARE = 0.05
const HANG_UP_MS_MAX = 10
/** Of the scripts that append. One holds the commands of many requests. */
const APPEND = 'append-keyed'
const LOSSES = { reply: 0.01, request: 0.004 }
/** One reply is lost, however short the run. */
const FIRST_REQUESTS = 20
const LOSS_SILENCE_MS = 1000

export const idempotency: Scenario = {
  name: 'idempotency',
  promise:
    '10,000 keys, each posted by 8 producers at once through 2 APIs, replies lost on both sides: one entry and one id a key',
  full: { commands: 10_000, seconds: 60, workerKills: 0, pauses: 0, redisKills: 0, rounds: 0 },
  async run(arena) {
    const { commands } = arena.size
    const workload = new Workload({ rows: commands, keys: 1000, bodyRows: 1, typeOf: plainType })
    const random = arena.random.fork('losses')
    let appends = 0
    let proxy: RedisProxy | undefined
    await arena.open({
      workload,
      workers: 0,
      redisUrl: async (redis) => {
        const opened = await RedisProxy.open(redis.port)
        proxy = opened
        arena.onClose(() => opened.close())
        return opened.url
      },
    })
    const second = await arena.fleet.start('api')
    const posts = new KeyedPosts({
      baseUrls: [arena.apiUrl, second.told('public')],
      workload,
      keyOf: (row) => arena.rowKey(row),
      random: arena.random.fork('hang-ups'),
      hangUpShare: HANG_UP_SHARE,
      hangUpMsMax: HANG_UP_MS_MAX,
      signal: arena.signal,
    })
    const lose = (request: string): LossKind | undefined => {
      if (request !== APPEND) return undefined
      appends += 1
      const draw = random.next()
      if (draw < LOSSES.reply || appends === FIRST_REQUESTS) return 'reply'
      return draw < LOSSES.reply + LOSSES.request ? 'request' : undefined
    }
    if (proxy !== undefined) proxy.loss = lose
    const rows = Array.from({ length: commands }, (_, row) => row)
    await arena.guard(posts.run(rows, { producers: PRODUCERS, keys: KEYS_AT_ONCE }))
    if (proxy !== undefined) proxy.loss = () => undefined
    // What was sent by a connection that was cut may still be on its way.
    await arena.guard(Bun.sleep(LOSS_SILENCE_MS))
    const { added: entries } = await arena.probe.backlog(arena.places)
    await arena.fleet.startWorker()
    await arena.quiet()
    const under = { posts: posts.posts, hungUp: posts.hungUp, cut: posts.cut }
    await arena.guard(posts.run(rows, { producers: 1, keys: KEYS_AT_ONCE * PRODUCERS }))
    const { added: entriesAfter } = await arena.probe.backlog(arena.places)
    const answered = [...posts.byRow]
    arena.ledger.accept(
      answered.map(([row]) => row),
      answered.map(([, { ids }]) => [...ids][0] ?? ''),
    )
    judge(arena, await arena.count(), { duplicateCallsMax: 0 })
    const torn = answered.filter(([, { ids }]) => ids.size !== 1).map(([row]) => row)
    const twiceFresh = answered.filter(([, { fresh }]) => fresh > 1).map(([row]) => row)
    const answers = answered.reduce((sum, [, key]) => sum + key.answers, 0)
    const lost = proxy?.lost ?? new Map<string, number>()
    arena.check(entries === commands, `${entries} entries for ${commands} keys`)
    arena.check(entriesAfter === commands, `${entriesAfter} entries after every key was posted once more`)
    arena.check(torn.length === 0, `${torn.length} keys have several ids, such as rows ${torn.slice(0, 5)}`)
    arena.check(twiceFresh.length === 0, `${twiceFresh.length} keys were told twice that they are new`)
    arena.check(posts.unanswered === 0, `${posts.unanswered} producers had no answer in the end`)
    arena.check(answers === commands * (PRODUCERS + 1), `${answers} answers for ${commands} keys`)
    arena.check(lost.has(`reply ${APPEND}`), 'no reply to an append was lost: nothing was tested')
    arena.check(under.hungUp > 0, 'no producer hung up: nothing was tested')
    Object.assign(arena.details, {
      entries,
      answers,
      ...under,
      statuses: Object.fromEntries(posts.statuses),
      losses: Object.fromEntries(lost),
      freshAnswers: answered.reduce((sum, [, { fresh }]) => sum + fresh, 0),
    })
  },
}
