/** Mutants of ordering by key: who may take a partition, what fences its old owner, and where a retry stands. */
import type { Mutant } from './mutant.ts'

const TAKE = 'src/redis/lua/take-partition.lua'
const LEASES = 'test/partition-lease.test.ts'

export const ORDERING_MUTANTS: readonly Mutant[] = [
  {
    name: 'epoch-ignored',
    breaks: 'A settlement of an ordered partition is taken without comparing the epoch of its lease.',
    promise: 'P9',
    edits: [
      {
        file: 'src/redis/lua/settle.lua',
        search: "if epoch ~= '' and call('HGET', KEYS[13], 'epoch') ~= epoch then return 'fenced' end\n",
        replacement: '',
      },
    ],
    guards: [
      { file: LEASES, test: 'whoever lost the lease reads nothing, settles nothing and holds nothing back' },
    ],
  },
  {
    name: 'old-group-stays',
    breaks: 'The group of the old epoch stays after a take-over: the old owner goes on reading.',
    promise: 'P9',
    edits: [
      { file: TAKE, search: "if old then call('XGROUP', 'DESTROY', KEYS[1], old) end\n", replacement: '' },
    ],
    guards: [
      { file: LEASES, test: 'whoever lost the lease reads nothing, settles nothing and holds nothing back' },
    ],
  },
  {
    name: 'take-owner-ignored',
    breaks: 'A partition is taken although its lease changed since it was looked at.',
    promise: 'P9',
    edits: [
      {
        file: TAKE,
        search: 'if owner ~= ARGV[2] or epoch ~= ARGV[3] then return false end\n',
        replacement: '',
      },
    ],
    guards: [{ file: LEASES, test: 'of two who saw the same lease one gets the partition' }],
  },
  {
    name: 'take-beat-ignored',
    breaks: 'A partition is taken from an owner whose heartbeat moved since it was judged.',
    promise: 'P9',
    edits: [
      {
        file: TAKE,
        search: "(call('HGET', KEYS[3], owner) or '') ~= ARGV[4] then",
        replacement: 'owner == ARGV[2] .. ARGV[3] then',
      },
    ],
    guards: [
      { file: LEASES, test: 'an owner whose heartbeat moved since it was judged keeps the partition' },
    ],
  },
  {
    name: 'retry-at-the-tail',
    breaks: 'A retry of an ordered command is appended behind the later commands of its key.',
    promise: 'P9',
    edits: [
      {
        file: 'src/runtime/decisions.ts',
        search: "if (kind === 'retry' && run.scope.epoch !== undefined) {",
        replacement: "if (kind === 'retry' && run.scope.epoch === -1) {",
      },
    ],
    guards: [
      {
        file: 'test/ordering.test.ts',
        test: 'a key in retry holds up only its own later commands; a rejected one lets them go',
      },
    ],
  },
  {
    name: 'key-without-queue',
    breaks:
      'Every command of an ordered partition runs as soon as it is read, whatever of its key came before.',
    promise: 'P9',
    edits: [
      {
        file: 'src/runtime/ordered-partition.ts',
        search: 'if (!this.#queues.add(command)) continue',
        replacement: 'this.#queues.add(command)',
      },
    ],
    guards: [
      {
        file: 'test/ordering.test.ts',
        test: 'a key in retry holds up only its own later commands; a rejected one lets them go',
      },
    ],
  },
  {
    name: 'held-forgotten',
    breaks:
      'The next owner of a partition does not know what retries of it have been through, nor when they are due.',
    promise: 'P9',
    edits: [
      {
        file: 'src/runtime/ordered-partition.ts',
        search: 'const held = this.#held.get(read.entryId)',
        replacement: "const held = this.#held.get('')",
      },
    ],
    guards: [
      {
        file: 'test/ordering-succession.test.ts',
        test: 'a retry that waited under the dead owner keeps its attempt, its time and its place, uncharged',
      },
    ],
  },
  {
    name: 'ordered-crash-uncharged',
    breaks: 'What ran in an ordered partition when its owner died runs again as if nothing had been.',
    promise: 'P12',
    edits: [
      {
        file: 'src/runtime/ordered-partition.ts',
        search: "if (taken.charge !== '') {",
        replacement: "if (taken.charge === '-') {",
      },
    ],
    guards: [
      {
        file: 'test/ordering-succession.test.ts',
        test: 'the first of each key is suspect; one that was marked for the third time is dead, and its key goes on',
      },
    ],
  },
  {
    name: 'parked-without-bound',
    breaks: 'A partition reads on however many commands wait behind the first of their key.',
    promise: 'P9',
    edits: [
      {
        file: 'src/runtime/ordered-partition.ts',
        search: 'new InFlight(clock, stream.parkedMax, ',
        replacement: 'new InFlight(clock, 1e9, ',
      },
    ],
    guards: [{ file: 'test/ordering.test.ts', test: 'at its bound a partition waits, says so, and goes on' }],
  },
  {
    name: 'hold-told-twice',
    breaks: 'A retry in place that is told again counts again, and an old one overwrites a newer.',
    promise: 'P9',
    edits: [
      {
        file: 'src/redis/lua/settle.lua',
        search: "if not kept or tonumber(string.match(kept, '^%d+:(%d+)')) < tonumber(move) then",
        replacement: 'if true then',
      },
    ],
    guards: [
      {
        file: 'test/partition-lease.test.ts',
        test: 'a retry in place counts once a turn, however often it is told; what ends it leaves nothing of it behind',
      },
    ],
  },
  {
    name: 'suspects-passed-over',
    breaks: 'Whoever dies before it charged the suspects of the one before it lets them off.',
    promise: 'P12',
    edits: [
      {
        file: TAKE,
        search: "if charge == '' and owner ~= ARGV[1] then charge = owner end",
        replacement: 'if owner ~= ARGV[1] then charge = owner end',
      },
    ],
    guards: [
      {
        file: 'test/partition-lease.test.ts',
        test: 'who died before it charged the suspects of the one before it passes them on',
      },
    ],
  },
  {
    name: 'charged-by-the-old',
    breaks: 'Whoever lost the lease of a partition still charges its suspects.',
    promise: 'P12',
    edits: [
      {
        file: 'src/redis/lua/charge-suspects.lua',
        search: 'if epoch ~= ARGV[1] then return 0 end\n',
        replacement: '',
      },
    ],
    guards: [{ file: 'test/partition-lease.test.ts', test: 'who has lost the lease charges nobody' }],
  },
  {
    name: 'handed-over-undrained',
    breaks: 'A partition is given back while commands of it are still running.',
    promise: 'P13',
    edits: [
      {
        file: 'src/runtime/ordered-stream.ts',
        search: '      .then(() => owned.settled())\n',
        replacement: '',
      },
    ],
    guards: [
      {
        file: 'test/ordering-succession.test.ts',
        test: 'a partition that is asked for changes hands only when what runs in it has ended',
      },
    ],
  },
  {
    name: 'ordered-loss-in-silence',
    breaks: 'What is gone of the entries of an ordered partition is not told as lost.',
    promise: 'P15',
    edits: [
      {
        file: 'src/runtime/ordered-stream.ts',
        search: 'if (taken.gone.length > 0) {',
        replacement: 'if (taken.gone.length < 0) {',
      },
    ],
    guards: [
      {
        file: 'test/ordering-succession.test.ts',
        test: 'a pending entry whose body is gone when the partition changes hands is an alarm and a lost command',
      },
    ],
  },
]
