/** Mutants at the door: idempotency, ids and status of commands, and the ticks of schedules. */
import type { Mutant } from './mutant.ts'

const KEYED = 'src/redis/lua/append-keyed.lua'
const FIRE = 'src/redis/lua/fire.lua'

export const ENTERING_MUTANTS: readonly Mutant[] = [
  {
    name: 'record-before-entry',
    breaks: 'An idempotency key is taken down before its command is stored.',
    promise: 'P2',
    edits: [
      {
        file: KEYED,
        search: "    local token\n    if when == ''",
        replacement:
          "    if current > 0 then redis.call('HSET', KEYS[current], digest, fingerprint .. 'e1-1') end\n    local token\n    if when == ''",
      },
    ],
    guards: [
      { file: 'test/command-bus.test.ts', test: 'a key whose command could not be stored is still unused' },
    ],
  },
  {
    name: 'fingerprint-forgotten',
    breaks: 'Another body under a known idempotency key is told the id of the first.',
    promise: 'P2',
    edits: [
      {
        file: KEYED,
        search: 'if string.sub(known, 1, 8) == fingerprint then',
        replacement: 'if string.sub(known, 1, 8) ~= nil then',
      },
    ],
    guards: [
      {
        file: 'test/command-bus.test.ts',
        test: 'another payload under the key is refused, also when it belongs to another partition or type',
      },
    ],
  },
  {
    name: 'window-forgets',
    breaks: 'An idempotency key is forgotten when its window ends, not one window later.',
    promise: 'P2',
    edits: [
      {
        file: KEYED,
        search:
          "    known = redis.call('HGET', KEYS[current], digest) or redis.call('HGET', KEYS[last], digest)",
        replacement: "    known = redis.call('HGET', KEYS[current], digest)",
      },
    ],
    guards: [
      {
        file: 'test/command-bus.test.ts',
        test: 'a key is known in the next window, and forgotten after two',
      },
    ],
  },
  {
    name: 'cancelled-too-late',
    breaks: 'A command that a worker has been given is cancelled under its hands.',
    promise: 'P1',
    edits: [
      {
        file: 'src/redis/lua/cancel.lua',
        search: '  if ms < deliveredMs or (ms == deliveredMs and seq <= deliveredSeq) then return 0 end\n',
        replacement: '',
      },
    ],
    guards: [
      {
        file: 'test/command-bus.test.ts',
        test: 'what has started is processing, and too late to cancel; what is acknowledged is done',
      },
    ],
  },
  {
    name: 'taken-in-when-full',
    breaks: 'Commands are taken in although Redis is out of memory.',
    promise: 'P7',
    edits: [{ file: 'src/redis/lua/append.lua', search: '#!lua\n', replacement: '#!lua flags=allow-oom\n' }],
    guards: [
      {
        file: 'test/out-of-memory.test.ts',
        test: 'appends are refused with their code and store nothing; workers settle, retry and bury; then all goes on',
      },
    ],
  },
  {
    name: 'checksum-unchecked',
    breaks: 'An id that was never issued is looked up as if it had been.',
    promise: 'P14',
    edits: [
      {
        file: 'src/redis/command-id.ts',
        search: 'if (!timingSafeEqual(Buffer.from(checksum), Buffer.from(expected))) {',
        replacement: 'if (!timingSafeEqual(Buffer.from(expected), Buffer.from(expected))) {',
      },
    ],
    guards: [
      {
        file: 'test/command-bus.test.ts',
        test: 'an invented id is not found, and what is no id at all is malformed',
      },
    ],
  },
  {
    name: 'status-floor-first',
    breaks:
      'A command that still waits or runs is told to have expired, once results of its age are dropped.',
    promise: 'P1',
    edits: [
      {
        file: 'src/redis/lua/status.lua',
        search: 'if not isOpen and tonumber',
        replacement: 'if tonumber',
      },
    ],
    guards: [
      {
        file: 'test/regressions.test.ts',
        test: 'a command that has waited longer than results are kept is waiting, not expired',
      },
    ],
  },
  {
    name: 'cron-by-lease',
    breaks: 'A tick is fired by whoever gets a short lease, without comparing the watermark.',
    promise: 'P8',
    edits: [
      {
        file: FIRE,
        search: "if mark ~= ARGV[2] or tick <= tonumber(mark) then return answer('behind') end",
        replacement:
          "if call('SET', KEYS[1] .. ':lease', ARGV[3], 'PX', 1000, 'GET') == ARGV[3] then return answer('behind') end",
      },
    ],
    guards: [
      {
        file: 'test/schedule-store.test.ts',
        test: 'whatever order views, fires, registrations and pauses come in, the script decides as the model does',
      },
    ],
  },
  {
    name: 'cron-early',
    breaks: 'A tick is fired before its time by the clock of Redis.',
    promise: 'P8',
    edits: [{ file: FIRE, search: "if tick > now then return answer('early') end", replacement: '' }],
    guards: [
      { file: 'test/schedule-store.test.ts', test: 'a tick is never fired early, by the clock of Redis' },
    ],
  },
]
