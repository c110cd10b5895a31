/** Mutants of limits: what processes hold in advance, what a refusal leaves behind, and the door in front of a stream. */
import type { Mutant } from './mutant.ts'

const WINDOW = 'src/redis/lua/limit-window.lua'
const BUCKET = 'src/redis/lua/limit-bucket.lua'

export const LIMITING_MUTANTS: readonly Mutant[] = [
  {
    name: 'held-is-free',
    breaks: 'A sliding window does not count what other processes hold in advance.',
    promise: 'P7',
    edits: [
      { file: WINDOW, search: 'quota - total - others - written', replacement: 'quota - total - written' },
    ],
    guards: [
      { file: 'test/limit-store.test.ts', test: 'counts what is held as gone, and what comes back as free' },
    ],
  },
  {
    name: 'bucket-fills-under-held',
    breaks: 'A token bucket fills the room of what is held, so that held and free are more than the burst.',
    promise: 'P7',
    edits: [
      {
        file: BUCKET,
        search: 'level = math.min(burst - others - mine, level + math.max(0, now - at) * rate)',
        replacement: 'level = math.min(burst, level + math.max(0, now - at) * rate)',
      },
      {
        file: BUCKET,
        search: 'level = math.min(burst - others - kept, level',
        replacement: 'level = math.min(burst, level',
      },
    ],
    guards: [
      {
        file: 'test/limit-store.test.ts',
        test: 'a bucket does not fill the room of what is held: held and free are never more than the burst',
      },
    ],
  },
  {
    name: 'silent-holder-uncounted',
    breaks: 'What a process held when it died is free again, though it may have used it.',
    promise: 'P7',
    edits: [
      { file: WINDOW, search: 'written = written + tokens', replacement: 'written = written + 0 * tokens' },
    ],
    guards: [
      {
        file: 'test/limit-store.test.ts',
        test: 'what a holder that fell silent held does not come back as free',
      },
    ],
  },
  {
    name: 'refusal-keeps-tokens',
    breaks: 'A request that one limit refuses keeps the tokens that it took of the others.',
    promise: 'P7',
    edits: [
      {
        file: 'src/limits/takings.ts',
        search: 'for (let i = 0; i < at; i++) claims[i]?.allotment.giveBack(wanted)',
        replacement: 'for (let i = 0; i < 0; i++) claims[i]?.allotment.giveBack(wanted)',
      },
    ],
    guards: [
      {
        file: 'test/rate-limits-http.test.ts',
        test: 'one limit that refuses leaves the tokens of the others',
      },
    ],
  },
  {
    name: 'stale-stock-used',
    breaks: 'A process that slept uses a stock that Redis has written off meanwhile.',
    promise: 'P7',
    edits: [
      {
        file: 'src/limits/allotment.ts',
        search: 'if (nowMs >= this.#stockUntilMs && this.#stock > 0) this.#forget()\n    if (this.#waiters',
        replacement: 'if (this.#waiters',
      },
    ],
    guards: [
      {
        file: 'test/allotment.test.ts',
        test: 'nothing of the stock is used once Redis may have written it off',
      },
    ],
  },
  {
    name: 'door-flaps',
    breaks: 'A closed door opens as soon as it is below the limit that closed it.',
    promise: 'P7',
    edits: [
      {
        file: 'src/policies/admission.ts',
        search: 'const REOPEN_SHARE = 0.95',
        replacement: 'const REOPEN_SHARE = 1',
      },
    ],
    guards: [
      {
        file: 'test/command-bus-admission.test.ts',
        test: 'between closing and opening a value falls by a twentieth of its limit, however it wavers',
      },
    ],
  },
  {
    name: 'door-blinks',
    breaks:
      'A door opens as soon as there is a little room, and is closed again before those come back who were refused.',
    promise: 'P7',
    edits: [
      {
        file: 'src/policies/admission.ts',
        search: 'const CLOSED_MS_MIN = 4000',
        replacement: 'const CLOSED_MS_MIN = 0',
      },
    ],
    guards: [
      {
        file: 'test/command-bus-admission.test.ts',
        test: 'at twice the load who comes back as told gets in, whatever the limit',
      },
    ],
  },
  {
    name: 'finished-counts',
    breaks: 'A door counts entries that workers have finished and nobody has trimmed yet.',
    promise: 'P7',
    edits: [
      {
        file: 'src/redis/lua/progress.lua',
        search: 'unfinished = math.min(stream.length, math.max(0, group.lag) + group.pending)',
        replacement: 'unfinished = stream.length',
      },
    ],
    guards: [
      {
        file: 'test/command-bus-admission.test.ts',
        test: 'what workers have finished does not count, trimmed or not; what is in their hands does',
      },
    ],
  },
]
