/** Mutants of reading and recovering: what a reader does after a broken connection, who is dead, and who is charged for it. */
import type { Mutant } from './mutant.ts'

const FETCHER = 'src/runtime/fetcher.ts'
const VERDICT = 'src/policies/death-verdict.ts'
const TAKEOVER = 'src/redis/lua/takeover.lua'

export const RECOVERING_MUTANTS: readonly Mutant[] = [
  {
    name: 'no-pending-reread',
    breaks:
      'After a broken connection a reader asks for new entries without looking through its own pending list.',
    promise: 'P11',
    edits: [
      {
        file: FETCHER,
        search: 'if (clock.monotonicMs() >= this.#rereadDueMs) await this.#reread()',
        replacement: '',
      },
    ],
    guards: [
      {
        file: 'test/reader-faults.test.ts',
        test: 'entries whose answer got lost are in the own pending list, and are found there after the connection broke',
      },
    ],
  },
  {
    name: 'no-client-kill',
    breaks:
      'A reader that reconnects leaves its old connection alive on the server, which goes on handing it entries.',
    promise: 'P11',
    edits: [{ file: FETCHER, search: 'await killConnection(command, last.id)', replacement: '{}' }],
    guards: [
      {
        file: 'test/reader-faults.test.ts',
        test: 'a connection that only this side has lost is ended before the next read: the server hands it nothing',
      },
    ],
  },
  {
    name: 'read-again-in-hand',
    breaks: 'What the own pending list shows is run although it is in hand already.',
    promise: 'P3',
    edits: [
      { file: FETCHER, search: '!inFlight.has(inFlightKey(source, id))', replacement: 'id !== undefined' },
      { file: 'src/runtime/in-flight.ts', search: 'if (this.has(key)) return false', replacement: '' },
    ],
    guards: [
      {
        file: 'test/reader-faults.test.ts',
        test: 'what is in hand does not run again when the own pending list is read',
      },
    ],
  },
  {
    name: 'resend-on',
    breaks: 'The client sends what was under way once more after a reconnect.',
    promise: 'P4',
    edits: [
      {
        file: 'src/redis/connection.ts',
        search: 'autoResendUnfulfilledCommands: false',
        replacement: 'autoResendUnfulfilledCommands: true',
      },
      {
        file: 'src/redis/connection.ts',
        search: 'maxRetriesPerRequest: 0',
        replacement: 'maxRetriesPerRequest: null',
      },
    ],
    guards: [
      {
        file: 'test/reader-faults.test.ts',
        test: 'a write that was under way when its connection died is not sent again behind the back of who wrote it',
      },
    ],
  },
  {
    name: 'kill-by-number-alone',
    breaks:
      'After a restart of the server a reader ends the connection that has the number of its old one now.',
    promise: 'P3',
    edits: [{ file: FETCHER, search: 'last.runId === present.runId', replacement: "last.runId !== ''" }],
    guards: [
      {
        file: 'test/regressions.test.ts',
        test: "after a restart of Redis a worker ends nobody else's connection",
      },
    ],
  },
  {
    name: 'loss-in-silence',
    breaks: 'A pending entry whose body is gone is left where it is, without an alarm.',
    promise: 'P15',
    edits: [
      {
        file: FETCHER,
        search: 'if (whole.length < entries.length)',
        replacement: 'if (whole.length > entries.length)',
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
    name: 'room-ignored',
    breaks: 'A reader asks for as many entries as one read may bring, however many are in hand.',
    promise: 'P10',
    edits: [
      {
        file: FETCHER,
        search: 'Math.min(readCountMax, Math.floor(inFlight.room / this.#sources.length))',
        replacement: 'readCountMax',
      },
    ],
    guards: [
      {
        file: 'test/regressions.test.ts',
        test: 'the bytes in hand stay near their bound when entries are large',
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
        search: 'releaseEntries(command, keys, consumer, held, true)',
        replacement: 'releaseEntries(command, keys, consumer, held.slice(0, 0), true)',
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
  {
    name: 'regrouped-at-the-end',
    breaks: 'A group that vanished is made again behind the last entry: what waited is never delivered.',
    promise: 'P15',
    edits: [
      {
        file: 'src/redis/lua/ensure-group.lua',
        search: "floor and before(floor) or '0'",
        replacement: "'$'",
      },
    ],
    guards: [
      {
        file: 'test/regressions.test.ts',
        test: 'a group that vanished is made again so that the entry which pinned the stream is delivered',
      },
    ],
  },
]
