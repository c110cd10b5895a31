/** Mutants of reading: what a reader does about broken connections, lost answers, lost entries and vanished groups. */
import type { Mutant } from './mutant.ts'

const FETCHER = 'src/runtime/fetcher.ts'

export const READING_MUTANTS: readonly Mutant[] = [
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
      { file: FETCHER, search: '!inFlight.has({ source, entryId: id })', replacement: 'id !== undefined' },
      {
        file: 'src/runtime/in-flight.ts',
        search: '    if (areYounger) return entries\n',
        replacement: '    if (areYounger || entries.length > 0) return entries\n',
      },
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
    name: 'black-hole-endured',
    breaks: 'A reader waits for ever on a connection that is open and dead.',
    promise: 'P11',
    edits: [
      { file: FETCHER, search: '() => reader.reconnect())', replacement: '() => undefined)' },
      {
        file: 'src/redis/connection.ts',
        search: "...(role === 'subscriber' ? {} : { socketTimeout",
        replacement: "...(role !== 'command' ? {} : { socketTimeout",
      },
    ],
    guards: [
      {
        file: 'test/reader-faults.test.ts',
        test: 'a reader whose connection is open but dead gets a new one, and what was handed to the old one runs',
      },
    ],
  },
  {
    name: 'left-while-rereading',
    breaks:
      'What is settled while the own pending list is being read comes back by that reading, and runs again.',
    promise: 'P3',
    edits: [
      {
        file: 'src/runtime/in-flight.ts',
        search: 'this.#seen === undefined ? this.#names() : new Set(this.#seen)',
        replacement: 'this.#names()',
      },
    ],
    guards: [
      {
        file: 'test/in-flight.test.ts',
        test: 'what leaves while the pending list is being read does not come back by that reading',
      },
    ],
  },
  {
    name: 'regrouped-never',
    breaks: 'A group that vanished under a running worker is not made again.',
    promise: 'P15',
    edits: [
      {
        file: 'src/runtime/partition-consumer.ts',
        search: 'onGroupGone: () => this.#regroup(onLoss),',
        replacement: 'onGroupGone: async () => undefined,',
      },
    ],
    guards: [
      {
        file: 'test/reader-faults.test.ts',
        test: 'a group that vanishes under its readers is an alarm each time, is made again, and the reading goes on',
      },
    ],
  },
  {
    name: 'regrouped-in-silence',
    breaks: 'A group that vanished under a running worker is made again without an alarm.',
    promise: 'P15',
    edits: [
      {
        file: 'src/runtime/partition-consumer.ts',
        search: `if (state === 'present') return
    this.#alarmVanished()`,
        replacement: `if (state === 'present') return`,
      },
    ],
    guards: [
      {
        file: 'test/reader-faults.test.ts',
        test: 'a group that vanishes under its readers is an alarm each time, is made again, and the reading goes on',
      },
    ],
  },
  {
    name: 'floor-forgotten',
    breaks:
      'A trim does not say how far it went, so that a group that is made again starts with what is done.',
    promise: 'P3',
    edits: [
      {
        file: 'src/redis/lua/trim-commands.lua',
        search: "if trimmed > 0 and source == 1 then redis.call('HSET', KEYS[3], 'commands', safe) end",
        replacement: '',
      },
    ],
    guards: [
      {
        file: 'test/partition-care.test.ts',
        test: 'a group that is made again after a trim starts at what was pending, not at what happens to be left',
      },
    ],
  },
  {
    name: 'left-before-answer',
    breaks: 'An entry counts as settled when its settlement is sent, not when it is answered.',
    promise: 'P3',
    edits: [
      {
        file: 'src/runtime/settler.ts',
        search: '    const startedMs = clock.monotonicMs()\n    for (let failures',
        replacement:
          "    const startedMs = clock.monotonicMs()\n    for (const run of batch.plain) this.#options.onSettled(run, 'ended', undefined)\n    for (let failures",
      },
    ],
    guards: [
      {
        file: 'test/reader-faults.test.ts',
        test: 'what is being settled does not run again when the own pending list is read meanwhile',
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
        search: 'Math.min(readCountMax, Math.floor((inFlight.room - expected) / parts))',
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
