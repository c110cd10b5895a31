/** Mutants of recovering: who is dead, what is taken over from whom, and who is charged for a crash. */
import type { Mutant } from './mutant.ts'

const FETCHER = 'src/runtime/fetcher.ts'
const VERDICT = 'src/policies/death-verdict.ts'
const TAKEOVER = 'src/redis/lua/takeover.lua'

export const RECOVERING_MUTANTS: readonly Mutant[] = [
  {
    name: 'takeover-loss-in-silence',
    breaks: 'What is gone of the entries of a dead worker is not told as lost.',
    promise: 'P15',
    edits: [
      {
        file: 'src/runtime/reclaimer.ts',
        search: 'if (taken.gone.length > 0) {',
        replacement: 'if (taken.gone.length < 0) {',
      },
    ],
    guards: [
      {
        file: 'test/reader-faults.test.ts',
        test: 'a pending entry whose body is gone is an alarm and a lost command, whoever finds it',
      },
    ],
  },
  {
    name: 'level-lost-with-answer',
    breaks: 'The crash level of a command is lost with the answer of the take-over that charged it.',
    promise: 'P12',
    edits: [{ file: FETCHER, search: 'level: levels[i] ?? 0', replacement: 'level: 0' }],
    guards: [
      {
        file: 'test/takeover.test.ts',
        test: 'the crash level of what was taken over holds also when the answer of the take-over was lost',
      },
    ],
  },
  {
    name: 'hands-back-others',
    breaks: 'A worker that stops hands back entries that another one has taken over meanwhile.',
    promise: 'P3',
    edits: [
      {
        file: 'src/redis/lua/release.lua',
        search: 'if pending[1] and pending[1][2] == ARGV[2] then',
        replacement: 'if pending[1] then',
      },
    ],
    guards: [
      {
        file: 'test/takeover.test.ts',
        test: 'a worker hands back only what is still its own, and leaves no heartbeat when it leaves',
      },
    ],
  },
  {
    name: 'verdict-by-age',
    breaks: 'Dead is whose heartbeat has been the same for a while, however the looks at it went.',
    promise: 'P3',
    edits: [
      {
        file: VERDICT,
        search: 'const late = gapMs > 2 * this.#intervalMs',
        replacement: 'const late = gapMs < 0',
      },
      {
        file: VERDICT,
        search: 'if (look.roundTripMs >= this.#intervalMs) {',
        replacement: 'if (gapMs < 0) {',
      },
      {
        file: VERDICT,
        search: 'if (observation.looks >= VERDICT_LOOKS_MIN) {',
        replacement: 'if (look.atMs - observation.sinceMs >= (VERDICT_LOOKS_MIN - 1) * this.#intervalMs) {',
      },
    ],
    guards: [
      {
        file: 'test/death-verdict.test.ts',
        test: 'after a pause of the observer, however long, the count starts again',
      },
      {
        file: 'test/death-verdict.test.ts',
        test: 'time alone is no proof: three looks are too few, however far apart they may be',
      },
    ],
  },
  {
    name: 'verdict-remembers-faults',
    breaks: 'A look that failed leaves the count of looks as it was.',
    promise: 'P3',
    edits: [
      {
        file: VERDICT,
        search: '    this.#observations = new Map()\n    this.#lastLookMs = Number.NEGATIVE_INFINITY\n',
        replacement: '',
      },
    ],
    guards: [
      {
        file: 'test/death-verdict.test.ts',
        test: 'a look that took as long as the interval counts for nothing, and neither does what came before it',
      },
      { file: 'test/death-verdict.test.ts', test: 'after a look that failed the count starts again' },
    ],
  },
  {
    name: 'verdict-late',
    breaks: 'It takes many more looks than four until a dead worker is found.',
    promise: 'P11',
    edits: [{ file: VERDICT, search: 'VERDICT_LOOKS_MIN = 4', replacement: 'VERDICT_LOOKS_MIN = 14' }],
    guards: [
      { file: 'test/worker.test.ts', test: 'a silent consumer is taken over from within three seconds' },
    ],
  },
  {
    name: 'pause-taken-for-stuck',
    breaks: 'A process that was paused ends itself when it wakes, as if its event loop had been stuck.',
    promise: 'P3',
    edits: [
      {
        file: 'src/runtime/heartbeat-thread.ts',
        search: 'if (current !== seenTick || wasPaused) {',
        replacement: 'if (current !== seenTick) {',
      },
    ],
    guards: [
      {
        file: 'test/heartbeat.test.ts',
        test: 'a pause in the middle of work is no fault of the event loop either',
      },
    ],
  },
  {
    name: 'takeover-beat-ignored',
    breaks: 'Entries are claimed from a consumer whose heartbeat moved since it was judged.',
    promise: 'P3',
    edits: [
      {
        file: TAKEOVER,
        search: "if (redis.call('HGET', KEYS[3], ARGV[2]) or '') ~= ARGV[4] then return false end\n",
        replacement: '',
      },
    ],
    guards: [
      {
        file: 'test/takeover.test.ts',
        test: 'a consumer whose heartbeat moved since it was judged keeps what it holds',
      },
    ],
  },
  {
    name: 'released-charged',
    breaks: 'Entries that a draining worker handed back are charged as if their worker had crashed.',
    promise: 'P13',
    edits: [
      {
        file: 'src/redis/consumer-group.ts',
        search: "from.consumer === FREE_CONSUMER ? '0' : '1'",
        replacement: "from.consumer === FREE_CONSUMER ? '1' : '1'",
      },
    ],
    guards: [
      {
        file: 'test/takeover.test.ts',
        test: 'what was marked as running rises by a level with every crash, all else is at level 1, what was handed back is at none',
      },
      {
        file: 'test/worker.test.ts',
        test: 'what a draining worker has read but not started goes to another, uncharged',
      },
    ],
  },
  {
    name: 'drained-not-released',
    breaks: 'A worker that stops leaves what it has not begun in its own pending list.',
    promise: 'P13',
    edits: [
      {
        file: 'src/runtime/partition-consumer.ts',
        search: 'releaseEntries(command, keys, consumer, entries, leaving)',
        replacement: 'releaseEntries(command, keys, consumer, entries.slice(0, 0), leaving)',
      },
    ],
    guards: [
      {
        file: 'test/worker.test.ts',
        test: 'what a draining worker has read but not started goes to another, uncharged',
      },
    ],
  },
  {
    name: 'crash-not-counted',
    breaks: 'A marked command stays at its crash level, however many workers it takes down.',
    promise: 'P12',
    edits: [
      {
        file: TAKEOVER,
        search: 'then level = level + 1 else',
        replacement: 'then level = math.max(level, 1) else',
      },
    ],
    guards: [
      {
        file: 'test/takeover.test.ts',
        test: 'what was marked as running rises by a level with every crash, all else is at level 1, what was handed back is at none',
      },
    ],
  },
  {
    name: 'crasher-never-dead',
    breaks: 'A command that has crashed its workers three times is run again.',
    promise: 'P12',
    edits: [
      {
        file: 'src/runtime/dispatcher.ts',
        search: 'if (run.ref.level >= CRASH_LEVEL_MAX) this.#bury',
        replacement: 'if (run.ref.level > CRASH_LEVEL_MAX) this.#bury',
      },
    ],
    guards: [
      { file: 'test/takeover.test.ts', test: 'a third crash is the end: a dead letter, without another run' },
    ],
  },
  {
    name: 'suspect-unmarked',
    breaks: 'Suspects start without being marked in Redis, so that nobody can tell who took the worker down.',
    promise: 'P12',
    edits: [
      {
        file: 'src/runtime/suspects.ts',
        search: 'await desk.mark(',
        replacement: 'await Promise.allSettled(',
      },
    ],
    guards: [
      {
        file: 'test/takeover.test.ts',
        test: 'a suspect is marked in Redis before it starts, and apart from fresh commands',
      },
    ],
  },
  {
    name: 'suspects-among-fresh',
    breaks: 'Suspects run in batches with fresh commands.',
    promise: 'P12',
    edits: [
      {
        file: 'src/runtime/dispatcher.ts',
        search: 'else if (run.ref.level > 0) this.#suspects.add',
        replacement: 'else if (run.ref.level < 0) this.#suspects.add',
      },
    ],
    guards: [
      {
        file: 'test/takeover.test.ts',
        test: 'a suspect is marked in Redis before it starts, and apart from fresh commands',
      },
    ],
  },
  {
    name: 'pending-dropped',
    breaks: 'A silent consumer is removed together with the entries that it still holds.',
    promise: 'P1',
    edits: [
      {
        file: 'src/redis/lua/remove-consumer.lua',
        search: "ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end",
        replacement: "ARGV[1], '-', '+', 1, ARGV[2]) < 0 then return 0 end",
      },
    ],
    guards: [
      {
        file: 'test/worker.test.ts',
        test: 'a consumer is removed only when it holds nothing and its heartbeat has not moved',
      },
    ],
  },
]
