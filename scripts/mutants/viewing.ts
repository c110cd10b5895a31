/** Mutants of views: what makes an event count once, and what keeps a cached view from staying old. */
import type { Mutant } from './mutant.ts'

const COMMIT = 'src/redis/lua/commit-views.lua'
const CACHE = 'src/projections/view-cache.ts'
const CACHE_TEST = 'test/view-cache.test.ts'

export const VIEWING_MUTANTS: readonly Mutant[] = [
  {
    name: 'views-in-two-calls',
    breaks: 'Views and their checkpoint are written in two calls.',
    promise: 'P5',
    edits: [
      { file: COMMIT, search: "redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])\n", replacement: '' },
      {
        file: 'src/redis/view-store.ts',
        search: "return replyNumber(await link.run('commit-views', scriptKeys, args)) === 1",
        replacement: `if (replyNumber(await link.run('commit-views', scriptKeys, args)) !== 1) return false
  await link.use('HSET of the checkpoint', (client) => client.hset(keys.readers, reader, checkpoint))
  return true`,
      },
    ],
    guards: [
      {
        file: 'test/projection.test.ts',
        test: 'a commit whose answer is lost counts once, also when it was the first',
      },
    ],
  },
  {
    name: 'checkpoint-uncompared',
    breaks: 'A commit of views is taken although somebody else has moved the checkpoint.',
    promise: 'P5',
    edits: [
      {
        file: COMMIT,
        search: "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end\n",
        replacement: '',
      },
    ],
    guards: [
      {
        file: 'test/view-store.test.ts',
        test: 'a commit counts once, and none counts that was folded from another checkpoint',
      },
    ],
  },
  {
    name: 'gap-keeps-cache',
    breaks: 'A notice that does not join on to the last one leaves what is cached.',
    promise: 'P5',
    edits: [
      {
        file: CACHE,
        search: 'if (keys === undefined || previous !== seen) {',
        replacement: 'if (keys === undefined) {',
      },
    ],
    guards: [
      {
        file: CACHE_TEST,
        test: 'a notice that joins on clears what it names, one that does not clears the partition',
      },
    ],
  },
  {
    name: 'dirty-load-kept',
    breaks: 'A view is cached although a commit of it was announced while it was being loaded.',
    promise: 'P5',
    edits: [{ file: CACHE, search: 'load.trusted && !dirty &&', replacement: 'load.trusted &&' }],
    guards: [{ file: CACHE_TEST, test: 'what was being loaded when a notice came is not kept' }],
  },
  {
    name: 'trust-without-end',
    breaks: 'Cached views are served although nothing shows that notices still arrive.',
    promise: 'P5',
    edits: [
      {
        file: CACHE,
        search: 'return this.#options.monotonicMs() < this.#trustedUntilMs',
        replacement: 'return this.#options.monotonicMs() > Number.NEGATIVE_INFINITY',
      },
    ],
    guards: [
      {
        file: CACHE_TEST,
        test: 'without a ping that came back, and after a lost connection, nothing is served or kept',
      },
    ],
  },
  {
    name: 'trust-from-arrival',
    breaks: 'Cached views are trusted from when a ping came back, not from when it was sent.',
    promise: 'P5',
    edits: [
      {
        file: CACHE,
        search: 'Math.max(this.#trustedUntilMs, sentMs + this.#options.trustMs)',
        replacement: 'this.#options.monotonicMs() + this.#options.trustMs',
      },
    ],
    guards: [
      { file: CACHE_TEST, test: 'trust counts from when the ping was sent, however late it came back' },
    ],
  },
]
