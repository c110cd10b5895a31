/**
 * Compiles a Lua 5.1 script to a JavaScript function, once, so that the product's own scripts run in the simulator.
 *
 * Each local gets a name of its own, so shadowing needs no care. A call may give several values (`Multi`); wherever Lua keeps
 * only the first, the code says `first`. Syntax, globals and library functions that are not known are refused by name when
 * the script is compiled, not when a run happens to reach them.
 */
import luaparse from 'luaparse'
import { LUA_LIBRARY, STRING_METHODS } from './lua-library.ts'
import {
  arithmetic,
  asFunction,
  concat,
  first,
  indexOf,
  isLess,
  isLessOrEqual,
  LuaError,
  type LuaFunction,
  LuaTable,
  type LuaValue,
  lengthOf,
  Multi,
  makeTable,
  setIndex,
  spread,
} from './lua-values.ts'

/** What the code calls; `L` is the library, `R` the functions of `redis`. */
const RUNTIME = {
  arithmetic,
  asFunction,
  concat,
  first,
  indexOf,
  isLess,
  isLessOrEqual,
  lengthOf,
  Multi,
  makeTable,
  setIndex,
  spread,
  method: (base: LuaValue, name: string): LuaFunction => {
    if (base instanceof LuaTable) return asFunction(base.get(name))
    const call = typeof base === 'string' ? STRING_METHODS[name] : undefined
    if (call === undefined) throw new LuaError(`there is no method "${name}"`)
    return call
  },
  isGreater: (a: LuaValue, b: LuaValue): boolean => isLess(b, a),
  isGreaterOrEqual: (a: LuaValue, b: LuaValue): boolean => isLessOrEqual(b, a),
  modulo: (a: LuaValue, b: LuaValue): number => {
    const [x, y] = [arithmetic(a), arithmetic(b)]
    return x - Math.floor(x / y) * y
  },
} as const
const RUNTIME_NAMES = Object.keys(RUNTIME)

export interface RedisFunctions {
  readonly [name: string]: LuaFunction
}

export type CompiledScript = (redis: RedisFunctions, keys: LuaTable, argv: LuaTable) => LuaValue | Multi

/** Functions that give exactly one value, so that `first` can be left out. */
const SINGLE = new Set([
  ...['tonumber', 'tostring', 'type', 'string.sub', 'string.format', 'string.len', 'string.rep'],
  ...['table.concat', 'table.remove', 'math.floor', 'math.ceil', 'math.max', 'math.min', 'math.abs'],
  ...['bit.band', 'bit.bor', 'redis.call', 'redis.pcall', 'redis.error_reply', 'redis.status_reply'],
])
const REDIS_NAMES = ['call', 'pcall', 'error_reply', 'status_reply', 'acl_check_cmd', 'sha1hex', 'log']
const COMPARISONS = new Set(['==', '~=', '<', '<=', '>', '>='])

type Expression = luaparse.Expression

class Scope {
  readonly names = new Map<string, string>()
  readonly outer: Scope | undefined

  constructor(outer: Scope | undefined) {
    this.outer = outer
  }

  find(name: string): string | undefined {
    return this.names.get(name) ?? this.outer?.find(name)
  }
}

class Compiler {
  readonly #script: string
  /** What the script uses of the library. */
  readonly used = new Set<string>()
  #scope = new Scope(undefined)
  #count = 0
  /** Variables that the present function needs for `and` and `or`. */
  #spares: string[] = []
  /** Whether the present function takes `...`. */
  #isVariadic = false

  constructor(script: string) {
    this.#script = script
  }

  #refuse(what: string): never {
    throw new Error(
      `The simulator can't run ${this.#script}: ${what} is not supported; teach it lua-compiler.ts.`,
    )
  }

  program(source: string): string {
    const chunk = luaparse.parse(source, {
      luaVersion: '5.1',
      comments: false,
      encodingMode: 'pseudo-latin1',
    })
    for (const name of ['KEYS', 'ARGV']) this.#scope.names.set(name, name)
    return this.#body(chunk.body)
  }

  #declare(name: string): string {
    const own = `${name}$${this.#count++}`
    this.#scope.names.set(name, own)
    return own
  }

  #body(statements: readonly luaparse.Statement[]): string {
    const outer = this.#spares
    this.#spares = []
    const code = this.#block(statements)
    const spares = this.#spares.length > 0 ? `let ${this.#spares.join(', ')};` : ''
    this.#spares = outer
    return `${spares}${code}`
  }

  #block(statements: readonly luaparse.Statement[], within = new Scope(this.#scope)): string {
    const outer = this.#scope
    this.#scope = within
    const code = statements.map((each) => this.#statement(each)).join('\n')
    this.#scope = outer
    return code
  }

  #statement(node: luaparse.Statement): string {
    switch (node.type) {
      case 'LocalStatement':
        return this.#local(node)
      case 'AssignmentStatement':
        return this.#assignment(node)
      case 'CallStatement':
        return `${this.#expression(node.expression)};`
      case 'FunctionDeclaration':
        return this.#functionStatement(node)
      case 'ReturnStatement':
        return this.#return(node)
      case 'IfStatement':
        return node.clauses
          .map((clause) => {
            if (clause.type === 'ElseClause') return `{${this.#block(clause.body)}}`
            return `if (${this.#condition(clause.condition)}) {${this.#block(clause.body)}}`
          })
          .join(' else ')
      case 'WhileStatement':
        return `while (${this.#condition(node.condition)}) {${this.#block(node.body)}}`
      case 'RepeatStatement':
        return this.#repeat(node)
      case 'DoStatement':
        return `{${this.#block(node.body)}}`
      case 'BreakStatement':
        return 'break;'
      case 'ForNumericStatement':
        return this.#forNumeric(node)
      case 'ForGenericStatement':
        return this.#forGeneric(node)
      case 'GotoStatement':
      case 'LabelStatement':
        return this.#refuse(node.type)
      default:
        return node satisfies never
    }
  }

  #local(node: luaparse.LocalStatement): string {
    const values = this.#values(node.variables.length, node.init)
    const names = node.variables.map(({ name }) => this.#declare(name))
    return `${values.setup}let ${names.map((name, i) => `${name} = ${values.at(i)}`).join(', ')};`
  }

  /** As Lua does: where to store is settled before the first store. */
  #assignment(node: luaparse.AssignmentStatement): string {
    const values = this.#values(node.variables.length, node.init)
    const [only] = node.variables
    if (node.variables.length === 1 && only !== undefined) {
      return `{${values.setup}${this.#storeTo(only)(values.at(0))}}`
    }
    const n = this.#count++
    const places: string[] = []
    const stores = node.variables.map((to, i) => {
      if (to.type === 'Identifier') return this.#storeTo(to)
      places.push(`b${n}$${i} = ${this.#expression(to.base)}`, `k${n}$${i} = ${this.#keyOf(to)}`)
      return (value: string) => `setIndex(b${n}$${i}, k${n}$${i}, ${value});`
    })
    const held = node.variables.map((_, i) => `h${n}$${i} = ${values.at(i)}`)
    const setup = `const ${[...places, ...held].join(', ')};`
    return `{${values.setup}${setup}${stores.map((store, i) => store(`h${n}$${i}`)).join('')}}`
  }

  #keyOf(to: luaparse.MemberExpression | luaparse.IndexExpression): string {
    return to.type === 'IndexExpression' ? this.#expression(to.index) : JSON.stringify(to.identifier.name)
  }

  #storeTo(to: luaparse.AssignmentStatement['variables'][number]): (value: string) => string {
    if (to.type !== 'Identifier') {
      const place = `${this.#expression(to.base)}, ${this.#keyOf(to)}`
      return (value) => `setIndex(${place}, ${value});`
    }
    const name = this.#scope.find(to.name) ?? this.#refuse(`setting the global "${to.name}"`)
    return (value) => `${name} = ${value};`
  }

  /** The values of a list of expressions, adjusted to so many. */
  #values(count: number, init: readonly Expression[]): { setup: string; at: (i: number) => string } {
    const last = init.at(-1)
    if (last !== undefined && init.length < count && isMany(last)) {
      const all = `m${this.#count++}`
      return { setup: `const ${all} = [${this.#list(init)}];`, at: (i) => `${all}[${i}]` }
    }
    const singles = init.map((each) => this.#expression(each))
    const extra = singles.slice(count)
    return {
      setup: extra.length === 0 ? '' : `${extra.join(';')};`,
      at: (i) => singles[i] ?? 'undefined',
    }
  }

  #functionStatement(node: luaparse.FunctionDeclaration): string {
    const { identifier } = node
    if (identifier === null || identifier.type !== 'Identifier' || !node.isLocal) {
      return this.#refuse('a function that is not local')
    }
    const name = this.#declare(identifier.name)
    return `let ${name}; ${name} = ${this.#function(node)};`
  }

  #function(node: luaparse.FunctionDeclaration): string {
    const scope = new Scope(this.#scope)
    const outer = this.#scope
    const wasVariadic = this.#isVariadic
    this.#scope = scope
    this.#isVariadic = false
    const parameters = node.parameters.map((each) => {
      if (each.type === 'Identifier') return this.#declare(each.name)
      this.#isVariadic = true
      return '...varargs'
    })
    const code = this.#body(node.body)
    this.#scope = outer
    this.#isVariadic = wasVariadic
    return `(${parameters.join(', ')}) => {${code}}`
  }

  #return(node: luaparse.ReturnStatement): string {
    const [only] = node.arguments
    if (only === undefined) return 'return new Multi([]);'
    if (node.arguments.length > 1) return `return new Multi([${this.#list(node.arguments)}]);`
    if (only.type === 'VarargLiteral') return 'return new Multi(varargs);'
    return `return ${isMany(only) ? this.#many(only) : this.#expression(only)};`
  }

  #repeat(node: luaparse.RepeatStatement): string {
    const scope = new Scope(this.#scope)
    const code = this.#block(node.body, scope)
    const outer = this.#scope
    this.#scope = scope
    const end = this.#condition(node.condition)
    this.#scope = outer
    return `for (;;) {${code}\nif (${end}) break;}`
  }

  #forNumeric(node: luaparse.ForNumericStatement): string {
    const n = this.#count++
    const number = (each: Expression | null): string =>
      each === null ? '1' : `arithmetic(${this.#expression(each)})`
    const head = `let i${n} = ${number(node.start)}, e${n} = ${number(node.end)}, s${n} = ${number(node.step)}`
    const scope = new Scope(this.#scope)
    const outer = this.#scope
    this.#scope = scope
    const name = this.#declare(node.variable.name)
    const code = this.#block(node.body)
    this.#scope = outer
    return `for (${head}; s${n} > 0 ? i${n} <= e${n} : i${n} >= e${n}; i${n} += s${n}) {let ${name} = i${n};${code}}`
  }

  #forGeneric(node: luaparse.ForGenericStatement): string {
    const n = this.#count++
    const [walk] = node.iterators
    const list = `[${this.#list(node.iterators)}]`
    const scope = new Scope(this.#scope)
    const outer = this.#scope
    const isWalk = walk?.type === 'CallExpression' && this.#libraryName(walk.base) === 'ipairs'
    const walked = isWalk && walk.arguments[0] !== undefined ? this.#expression(walk.arguments[0]) : ''
    this.#scope = scope
    const names = node.variables.map(({ name }) => this.#declare(name))
    const code = this.#block(node.body)
    this.#scope = outer
    if (isWalk) {
      const [at = `u${n}`, value = `v${n}`] = names
      const step = `let ${at} = i${n}; let ${value} = t${n}.get(i${n}); if (${value} === undefined) break;`
      return `{const t${n} = ${walked}; for (let i${n} = 1; ; i${n}++) {${step}${code}}}`
    }
    const step = `const r${n} = spread(asFunction(f${n})(s${n}, c${n})); c${n} = r${n}[0]; if (c${n} === undefined) break;`
    const variables = `let ${names.map((name, i) => `${name} = r${n}[${i}]`).join(', ')};`
    return `{let [f${n}, s${n}, c${n}] = ${list}; for (;;) {${step}${variables}${code}}}`
  }

  /** Expressions as list elements; a call in the last place gives all its values. */
  #list(expressions: readonly Expression[]): string {
    return expressions
      .map((each, i) => {
        if (i < expressions.length - 1 || !isMany(each)) return this.#expression(each)
        return each.type === 'VarargLiteral' ? this.#varargs('...varargs') : `...spread(${this.#many(each)})`
      })
      .join(', ')
  }

  #varargs(code: string): string {
    return this.#isVariadic ? code : this.#refuse('"..." outside a function that takes it')
  }

  /** A condition as a JavaScript boolean. */
  #condition(node: Expression): string {
    if (node.type === 'LogicalExpression') {
      const operator = node.operator === 'and' ? '&&' : '||'
      return `(${this.#condition(node.left)} ${operator} ${this.#condition(node.right)})`
    }
    if (node.type === 'UnaryExpression' && node.operator === 'not')
      return `!${this.#condition(node.argument)}`
    if (node.type === 'BinaryExpression' && COMPARISONS.has(node.operator)) return this.#expression(node)
    const spare = this.#spare()
    return `((${spare} = ${this.#expression(node)}) !== undefined && ${spare} !== false)`
  }

  #spare(): string {
    const spare = `w${this.#count++}`
    this.#spares.push(spare)
    return spare
  }

  /** One value. */
  #expression(node: Expression): string {
    switch (node.type) {
      case 'StringLiteral':
        return JSON.stringify(node.value)
      case 'NumericLiteral':
        return String(node.value)
      case 'BooleanLiteral':
        return String(node.value)
      case 'NilLiteral':
        return 'undefined'
      case 'VarargLiteral':
        return this.#varargs('varargs[0]')
      case 'Identifier':
        return this.#scope.find(node.name) ?? this.#library(node)
      case 'MemberExpression':
      case 'IndexExpression':
        return this.#index(node)
      case 'TableConstructorExpression':
        return this.#table(node)
      case 'FunctionDeclaration':
        return this.#function(node)
      case 'CallExpression':
      case 'TableCallExpression':
      case 'StringCallExpression':
        return SINGLE.has(this.#libraryName(node.base) ?? '')
          ? this.#many(node)
          : `first(${this.#many(node)})`
      case 'UnaryExpression':
        return this.#unary(node)
      case 'BinaryExpression':
        return this.#binary(node)
      case 'LogicalExpression': {
        const spare = this.#spare()
        const left = `(${spare} = ${this.#expression(node.left)})`
        const right = this.#expression(node.right)
        return node.operator === 'and'
          ? `(${left} === undefined || ${spare} === false ? ${spare} : ${right})`
          : `(${left} !== undefined && ${spare} !== false ? ${spare} : ${right})`
      }
      default:
        return node satisfies never
    }
  }

  #index(node: luaparse.MemberExpression | luaparse.IndexExpression): string {
    if (this.#libraryName(node) !== undefined) return this.#library(node)
    const key =
      node.type === 'IndexExpression' ? this.#expression(node.index) : JSON.stringify(node.identifier.name)
    return `indexOf(${this.#expression(node.base)}, ${key})`
  }

  /** `string.sub`, `redis.call`, `tonumber`: the name of something that is not the script's own. */
  #libraryName(node: Expression): string | undefined {
    if (node.type === 'Identifier') return this.#scope.find(node.name) === undefined ? node.name : undefined
    if (node.type !== 'MemberExpression' || node.indexer !== '.' || node.base.type !== 'Identifier')
      return undefined
    if (this.#scope.find(node.base.name) !== undefined) return undefined
    return `${node.base.name}.${node.identifier.name}`
  }

  #library(node: Expression): string {
    const name = this.#libraryName(node) ?? ''
    if (LUA_LIBRARY.has(name)) {
      this.used.add(name)
      return constantOf(name)
    }
    const [room, member = ''] = name.split('.')
    if (room === 'redis' && REDIS_NAMES.includes(member)) return `R.${member}`
    return this.#refuse(`"${name}"`)
  }

  /** All values of a call. */
  #many(node: Expression): string {
    if (node.type === 'CallExpression') return this.#call(node.base, node.arguments)
    if (node.type === 'StringCallExpression') return this.#call(node.base, [node.argument])
    // The types of luaparse say a list; it is the one table.
    if (node.type === 'TableCallExpression') return this.#call(node.base, [node.arguments].flat())
    return this.#expression(node)
  }

  #call(base: Expression, args: readonly Expression[]): string {
    const list = this.#list(args)
    if (base.type === 'MemberExpression' && base.indexer === ':') {
      const spare = this.#spare()
      const self = `(${spare} = ${this.#expression(base.base)})`
      const rest = args.length === 0 ? '' : `, ${list}`
      return `method(${self}, ${JSON.stringify(base.identifier.name)})(${spare}${rest})`
    }
    if (this.#libraryName(base) !== undefined) return `${this.#library(base)}(${list})`
    return `asFunction(${this.#expression(base)})(${list})`
  }

  #table(node: luaparse.TableConstructorExpression): string {
    const list: Expression[] = []
    const fields: string[] = []
    for (const field of node.fields) {
      if (field.type === 'TableValue') list.push(field.value)
      else if (field.type === 'TableKeyString') {
        fields.push(`[${JSON.stringify(field.key.name)}, ${this.#expression(field.value)}]`)
      } else fields.push(`[${this.#expression(field.key)}, ${this.#expression(field.value)}]`)
    }
    return `makeTable([${this.#list(list)}], [${fields.join(', ')}])`
  }

  #unary(node: luaparse.UnaryExpression): string {
    const { operator } = node
    if (operator === 'not') return `!${this.#condition(node.argument)}`
    const argument = this.#expression(node.argument)
    if (operator === '-') return `-arithmetic(${argument})`
    return operator === '#' ? `lengthOf(${argument})` : this.#refuse(`"${operator}"`)
  }

  #binary(node: luaparse.BinaryExpression): string {
    const { operator } = node
    const [a, b] = [this.#expression(node.left), this.#expression(node.right)]
    const write = OPERATORS[operator]
    return write === undefined ? this.#refuse(`"${operator}"`) : write(a, b)
  }
}

const OPERATORS: Readonly<Record<string, (a: string, b: string) => string>> = {
  '==': (a, b) => `(${a} === ${b})`,
  '~=': (a, b) => `(${a} !== ${b})`,
  '<': (a, b) => `isLess(${a}, ${b})`,
  '<=': (a, b) => `isLessOrEqual(${a}, ${b})`,
  '>': (a, b) => `isGreater(${a}, ${b})`,
  '>=': (a, b) => `isGreaterOrEqual(${a}, ${b})`,
  '..': (a, b) => `concat(${a}, ${b})`,
  '%': (a, b) => `modulo(${a}, ${b})`,
  '^': (a, b) => `(arithmetic(${a}) ** arithmetic(${b}))`,
  '+': (a, b) => `(arithmetic(${a}) + arithmetic(${b}))`,
  '-': (a, b) => `(arithmetic(${a}) - arithmetic(${b}))`,
  '*': (a, b) => `(arithmetic(${a}) * arithmetic(${b}))`,
  '/': (a, b) => `(arithmetic(${a}) / arithmetic(${b}))`,
}

function constantOf(name: string): string {
  return `L$${name.replace('.', '$')}`
}

function isMany(node: Expression): boolean {
  return /^(?:String|Table)?CallExpression$|^VarargLiteral$/.test(node.type)
}

/** @throws Error that names what the script uses and the compiler does not know */
export function compileLua(name: string, source: string): CompiledScript {
  const bytes = Buffer.from(source.replace(/^#!.*/, ''), 'utf8').toString('latin1')
  const compiler = new Compiler(name)
  const code = compiler.program(bytes)
  const constants = [...compiler.used]
    .map((each) => `const ${constantOf(each)} = L.get(${JSON.stringify(each)});`)
    .join('')
  const make: unknown = new Function(
    ...RUNTIME_NAMES,
    'L',
    `${constants} return (R, KEYS, ARGV) => {${code}}`,
  )
  return (make as (...parts: unknown[]) => CompiledScript)(...Object.values(RUNTIME), LUA_LIBRARY)
}
