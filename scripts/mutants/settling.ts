/** Mutants of settling: what gates effects, who may fail a command, and moves that must be in one place at a time. */
import type { Mutant } from './mutant.ts'

const SETTLE = 'src/redis/lua/settle.lua'
const APPEND_ONCE = 'src/redis/lua/append-once.lua'

export const SETTLING_MUTANTS: readonly Mutant[] = [
  {
    name: 'effects-unchecked',
    breaks: 'Effects of a success are written whether or not its acknowledgement was the first.',
    promise: 'P4',
    edits: [
      {
        file: SETTLE,
        search: "elseif call('XACK', KEYS[source], group, id) == 1 then\n    successes",
        replacement: "elseif call('XACK', KEYS[source], group, id) >= 0 then\n    successes",
      },
    ],
    guards: [
      {
        file: 'test/worker.test.ts',
        test: 'a success counts once, whoever delivers it first; a stale failure never wins',
      },
    ],
  },
  {
    name: 'stale-failure',
    breaks: 'A failure counts also from a consumer that no longer holds the entry.',
    promise: 'P4',
    edits: [
      {
        file: SETTLE,
        search: 'pending[1] and pending[1][2] == consumer',
        replacement: 'pending[1]',
      },
    ],
    guards: [
      {
        file: 'test/worker.test.ts',
        test: 'a success counts once, whoever delivers it first; a stale failure never wins',
      },
    ],
  },
  {
    name: 'unsettled-when-full',
    breaks: 'Nothing is settled while Redis is out of memory, so that nothing drains.',
    promise: 'P7',
    edits: [{ file: SETTLE, search: '#!lua flags=allow-oom\n', replacement: '#!lua\n' }],
    guards: [
      {
        file: 'test/out-of-memory.test.ts',
        test: 'appends are refused with their code and store nothing; workers settle, retry and bury; then all goes on',
      },
    ],
  },
  {
    name: 'promoted-twice',
    breaks: 'What is due goes to the ready stream and stays among what is due.',
    promise: 'P6',
    edits: [
      {
        file: 'src/redis/lua/promote.lua',
        search: "  redis.call('ZREM', KEYS[1], token)\n",
        replacement: '',
      },
      {
        file: 'src/redis/lua/promote.lua',
        search: "    redis.call('HDEL', KEYS[2], token)\n",
        replacement: '',
      },
    ],
    guards: [
      {
        file: 'test/partition-care.test.ts',
        test: 'what is due is in one place: among the due ones before, in the ready stream after, and there once',
      },
    ],
  },
  {
    name: 'redriven-letter-stays',
    breaks: 'A redriven dead letter is sent back and stays in the dead-letter stream.',
    promise: 'P6',
    edits: [
      {
        file: 'src/redis/lua/redrive-dead.lua',
        search: "    redis.call('XDEL', KEYS[1], id)\n",
        replacement: '',
      },
    ],
    guards: [
      {
        file: 'test/dead-letter-moves.test.ts',
        test: 'after the fix runs it again as attempt 1 under the same id, and it is done',
      },
      {
        file: 'test/dead-letters.test.ts',
        test: 'answers that are lost or late: an operation counts each once, and every command is in exactly one place',
      },
    ],
  },
  {
    name: 'relayed-twice',
    breaks: 'The target of an outbox ignores its watermark and takes an entry each time it is relayed.',
    promise: 'P4',
    edits: [{ file: APPEND_ONCE, search: 'if newer(id, mark) then', replacement: 'if true then' }],
    guards: [
      {
        file: 'test/outbox.test.ts',
        test: 'what is relayed twice, in part, or by two at once arrives once and in order',
      },
    ],
  },
  {
    name: 'relayed-past-a-gap',
    breaks: 'The target of an outbox takes an entry although one before it never came.',
    promise: 'P4',
    edits: [{ file: APPEND_ONCE, search: 'if newer(prev, mark) then', replacement: 'if false then' }],
    guards: [
      {
        file: 'test/outbox.test.ts',
        test: 'past a missing one nothing is taken; once it has come, the rest follows',
      },
    ],
  },
  {
    name: 'outbox-trimmed-first',
    breaks: 'Entries leave the outbox before their targets have answered.',
    promise: 'P4',
    edits: [
      {
        file: 'src/runtime/outbox-relay.ts',
        search: '    for (const [target, own] of byTarget(entries)) {',
        replacement:
          '    await trimOutbox(link, keys, last.id)\n    for (const [target, own] of byTarget(entries)) {',
      },
    ],
    guards: [
      { file: 'test/outbox.test.ts', test: 'an entry leaves the outbox only after its target has answered' },
    ],
  },
  {
    name: 'outbox-trimmed-at-gap',
    breaks: 'What a gap keeps from its target is trimmed from the outbox all the same.',
    promise: 'P15',
    edits: [
      {
        file: 'src/runtime/outbox-relay.ts',
        search: 'if (this.#gaps.size > 0) this.#after = last.id',
        replacement: "if (this.#gaps.size > 1e9) this.#after = ''",
      },
    ],
    guards: [
      {
        file: 'test/outbox.test.ts',
        test: 'what a gap keeps from its target stays in the outbox, with an alarm',
      },
    ],
  },
  {
    name: 'neighbour-charged',
    breaks:
      'A batch that throws is not split: all of it has failed, and the attempt counts for everybody in it.',
    promise: 'P3',
    edits: [
      {
        file: 'src/runtime/batch.ts',
        search: `if (failed.length === 1) {
      onDecided([decide(environment, handler, head(failed), retry(error))])`,
        replacement: `if (failed.length > 0) {
      onDecided(failed.map((run) => decide(environment, handler, run, retry(error))))`,
      },
    ],
    guards: [
      {
        file: 'test/worker.test.ts',
        test: 'is split until the bad commands stand alone: exactly those die, with every error, the rest runs as attempt 1',
      },
    ],
  },
  {
    name: 'retry-among-fresh',
    breaks: 'A command that failed before runs in batches with fresh ones.',
    promise: 'P3',
    edits: [
      {
        file: 'src/runtime/dispatcher.ts',
        search: 'const fresh = run.trail.attempts === 0',
        replacement: 'const fresh = run.trail.attempts >= 0',
      },
    ],
    guards: [
      {
        file: 'test/worker.test.ts',
        test: 'a command that failed before runs with its like, never in a fresh batch',
      },
    ],
  },
  {
    name: 'stale-decision',
    breaks: 'A decision on an aggregate counts although somebody else has changed it meanwhile.',
    promise: 'P4',
    edits: [{ file: SETTLE, search: 'return not same and #call(', replacement: 'return false and #call(' }],
    guards: [
      {
        file: 'test/aggregate-chain.test.ts',
        test: 'the same holds when the two are settled by different requests',
      },
    ],
  },
  {
    name: 'trim-by-length',
    breaks: 'Commands are trimmed to a length, not to what every one of them has behind it.',
    promise: 'P7',
    edits: [
      {
        file: 'src/redis/lua/trim-commands.lua',
        search: "'MINID', '~', safe, 'LIMIT'",
        replacement: "'MAXLEN', '~', 1000, 'LIMIT'",
      },
    ],
    guards: [
      {
        file: 'test/partition-care.test.ts',
        test: 'a trim leaves what is pending and what is unread, however long the stream is',
      },
    ],
  },
  {
    name: 'trim-past-readers',
    breaks: 'Events past their retention are trimmed although a projection has not read them.',
    promise: 'P7',
    edits: [
      {
        file: 'src/redis/lua/trim-events.lua',
        search: "if slowest ~= '' and older(slowest, cut) then cut = slowest end\n",
        replacement: '',
      },
    ],
    guards: [
      {
        file: 'test/projection.test.ts',
        test: 'trimming waits for every reader; a new one after it starts at the floor and says so',
      },
    ],
  },
]
