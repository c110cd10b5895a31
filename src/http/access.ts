/**
 * Who may use which route. One table, by the names that routes have in metrics; a route that is not in it is served to nobody
 * once credentials are asked for, because its app is not built then.
 *
 * A name that the credential may not reach is refused before it is looked up, so what exists is not told: an unknown command
 * type is 403 for a credential that is restricted to some streams, and 404 for one that may write them all.
 */
import type { MaybeSubmission } from '../commands/readable-submissions.ts'
import { errorCode, MillraceError } from '../contracts/errors.ts'
import { ANYBODY, type Principal, type Verb } from '../contracts/principal.ts'
import type { Answer, RouteContext, RouteRules } from './answers.ts'
import type { ExchangeAnswer } from './direct-routes.ts'

/** What a route asks of a credential. */
type Rule =
  /** Nothing: not even that there is one. */
  | 'open'
  /** That it is valid. */
  | 'known'
  /** Scope `admin`. */
  | 'admin'
  /** `name`: what the first name in the path says about the stream, or is a projection. */
  | { readonly verb: Verb; readonly name: 'command type' | 'command id' | 'projection' | 'stream' }
  /** The verb for one stream at least; the route looks at each item. */
  | { readonly verb: Verb; readonly name: 'each item' }

export const ACCESS: Readonly<Record<string, Rule>> = {
  'health.live': 'open',
  'health.startup': 'open',
  'health.ready': 'open',
  problem: 'open',
  'reference.openapi': 'known',
  'reference.page': 'known',
  unmatched: 'known',
  'command.send': { verb: 'commands:write', name: 'command type' },
  'command.send-bulk': { verb: 'commands:write', name: 'each item' },
  'command.status': { verb: 'commands:read', name: 'command id' },
  'command.cancel': { verb: 'commands:write', name: 'command id' },
  'view.read': { verb: 'views:read', name: 'projection' },
  'view.page': { verb: 'views:read', name: 'projection' },
  'event.tail': { verb: 'events:read', name: 'stream' },
  metrics: 'admin',
  'stream.list': 'admin',
  'stream.show': 'admin',
  'autoscale.show': 'admin',
  'schedule.list': 'admin',
  'schedule.show': 'admin',
  'schedule.run': 'admin',
  'schedule.pause': 'admin',
  'schedule.resume': 'admin',
  'dead-letter.page': 'admin',
  'dead-letter.show': 'admin',
  'dead-letter.discard': 'admin',
  'dead-letter.redrive': 'admin',
  'dead-letter.redrive-all': 'admin',
  'dead-letter.purge-all': 'admin',
  'operation.show': 'admin',
  'key.list': 'admin',
  'key.show': 'admin',
  'key.create': 'admin',
  'key.rotate': 'admin',
  'key.revoke': 'admin',
}

/** Undefined for a type that nobody defines. */
export type StreamOfType = (type: string) => string | undefined

/** Puts the rule of each route in front of it, once, when the app is built. */
export class Access implements RouteRules {
  readonly #streamOfType: StreamOfType

  constructor(streamOfType: StreamOfType) {
    this.#streamOfType = streamOfType
  }

  /** For a route that is found directly. @throws MillraceError `definition.invalid` for a route without a rule */
  direct(route: string, answer: ExchangeAnswer): ExchangeAnswer {
    const check = this.#check(route)
    if (check === undefined) return answer
    return (exchange) => {
      check(exchange.principal, exchange.params[0])
      return answer(exchange)
    }
  }

  /** For a route of Hono. @throws MillraceError `definition.invalid` for a route without a rule */
  on(route: string, answer: Answer): Answer {
    const check = this.#check(route)
    if (check === undefined) return answer
    return (c) => {
      check(principalOf(c), Object.values(c.req.param())[0])
      return answer(c)
    }
  }

  /** One command whose type stands in the body. @throws MillraceError `identity.forbidden` */
  checkSending(principal: Principal, type: string): void {
    if (!principal.allows('commands:write', this.#streamOfType(type))) throw notAllowed('commands:write')
  }

  /** Items of a bulk body: those that the credential may not send become refusals. */
  allowedItems(principal: Principal, items: readonly MaybeSubmission[]): readonly MaybeSubmission[] {
    if (principal.allows('commands:write', undefined)) return items
    return items.map((item) => {
      if (errorCode(item) !== undefined || !('type' in item)) return item
      return principal.allows('commands:write', this.#streamOfType(item.type))
        ? item
        : notAllowed('commands:write')
    })
  }

  #check(route: string): ((principal: Principal, name: string | undefined) => void) | undefined {
    const rule = Object.hasOwn(ACCESS, route) ? ACCESS[route] : undefined
    if (rule === undefined) {
      throw new MillraceError(
        'definition.invalid',
        `Route "${route}" has no rule: say in access.ts who may use it.`,
      )
    }
    if (rule === 'open' || rule === 'known') return undefined
    if (rule === 'admin') {
      return (principal) => {
        if (!principal.allows('admin', undefined)) throw notAllowed('admin')
      }
    }
    const { verb, name: kind } = rule
    if (kind === 'each item') {
      return (principal) => {
        if (!principal.allowsSome(verb)) throw notAllowed(verb)
      }
    }
    const nameOf = this.#namer(kind)
    return (principal, name = '') => {
      if (!principal.allows(verb, nameOf(name))) throw notAllowed(verb)
    }
  }

  #namer(kind: 'command type' | 'command id' | 'projection' | 'stream'): StreamOfType {
    if (kind === 'command type') return this.#streamOfType
    // An id begins with its stream, which is only a text here: whether it was ever given out is checked later.
    return kind === 'command id' ? (id) => id.split('.', 1)[0] : (name) => name
  }
}

/** Who asks, as the guard in front of the app found out. */
export function principalOf(c: RouteContext): Principal {
  return c.env?.principal ?? ANYBODY
}

function notAllowed(verb: Verb): MillraceError {
  const what = verb === 'views:read' ? 'projection' : 'stream'
  const reach = verb === 'admin' ? '' : ` for this ${what}, or there is none of this name`
  return new MillraceError('identity.forbidden', `The credential has no scope ${verb}${reach}.`)
}
