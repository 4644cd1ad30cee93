"""The words of the site in all its languages, side by side. `Language.word` looks them up."""

from collections.abc import Mapping

WORDS: Mapping[str, tuple[str, str]] = {
    # card, members, comparison, matrix
    "mechanism": ("Mechanism", "机制"),
    "weights": ("Weights", "权重"),
    "domain": ("Domain", "作用域"),
    "chapter": ("Chapter", "章节"),
    "foundations": ("Foundations", "基础"),
    "place": ("Place", "位置"),
    "paper": ("Paper", "论文"),
    "year": ("Year", "年份"),
    "shapes": ("Shapes", "形状"),
    "attention": ("Shape of g(x)", "g(x) 的形状"),
    "parameters": ("Parameters", "参数量"),
    "macs": ("Multiply-adds", "乘加次数"),
    "complexity": ("Complexity", "复杂度"),
    "more": ("Paper, cost, names", "论文、代价、别名"),
    "aliases": ("Also called", "别名"),
    "evidence": ("Evidence", "依据"),
    "used by": ("Used by", "使用情况"),
    "count of": ("{count} of {counted} model families", "{counted} 个模型家族中有 {count} 个"),
    "used by families": (
        "{families} in {package}, for example {names}",
        "{package} 的 {families}，例如 {names}",
    ),
    "used by named": ("{families} in {package}: {names}", "{package} 的 {families}：{names}"),
    "copy": ("Copy {file}", "复制 {file}"),
    "copied": ("Copied", "已复制"),
    "download": ("Download", "下载"),
    "run": ("Run", "运行"),
    "no parameters": ("none", "无"),
    "state": ("Kept by a decoder", "解码器保留"),
    "per token": ("{formula} per token", "每个词元 {formula}"),
    "per sequence": ("{formula} per sequence", "每条序列 {formula}"),
    "symbols": (
        "B: batch, C: channels, H and W: height and width, N = HW: positions, T: length of the sequence"
        " (of the queries), S: length of the keys, D, E and d: widths, r: reduction."
        " Other symbols are explained on the page of the mechanism.",
        "B：批大小；C：通道数；H、W：高和宽；N = HW：位置数；T：序列（查询）长度；S：键的长度；"
        "D、E、d：宽度；r：压缩比。其余符号见各机制的页面。",
    ),
    # figure, diagram
    "figure": (
        "Figure drawn by running the code; the caption says what it shows",
        "运行代码绘制的图，说明见图注",
    ),
    "figure of": (
        "{title}: figure drawn by running the code; the caption says what it shows",
        "{title}：运行代码绘制的图，说明见图注",
    ),
    # code
    "hide docstrings": ("Hide docstrings", "隐藏文档字符串"),
    "changed since": ("What changed since {name}", "与 {name} 相比改了什么"),
    "without docstrings": (
        "The code of both modules, without docstrings; - is gone, + is new.",
        "两个模块的代码，不含文档字符串；- 为删去，+ 为新增。",
    ),
    # panels: the kind, then what panels.js calls it
    "query: open": ("Move the point", "移动查询点"),
    "query: query": ("query", "查询"),
    "query: point": ("Query; arrow keys move it", "查询点，可用方向键移动"),
    "query: at": ("Row {row}, column {column}. Largest: ", "第 {row} 行，第 {column} 列。最大值："),
    "matrix: open": ("Point at rows and columns", "逐行逐列查看"),
    "matrix: cell": ("Cell; arrow keys move it", "单元格，可用方向键移动"),
    "matrix: choice": ("Weights of", "查看"),
    "matrix: reads": ("{row} reads {column}: {number}", "{row} 读 {column}：{number}"),
    "mask: open": ("Switch the masks", "开关掩码"),
    "mask: cell": ("Cell; arrow keys move it", "单元格，可用方向键移动"),
    "mask: masks": ("Masks", "掩码"),
    "mask: reads": ("{row} reads {column}: {number}", "{row} 读 {column}：{number}"),
    "mask: hidden": ("{row} may not read {column}", "{row} 不可读 {column}"),
    "dial: open": ("Turn the dials", "调节旋钮"),
    "gate: open": ("Switch the gates", "开关门控"),
    "gate: picture": ("Picture", "图像"),
    "gate: gates": ("Gates", "门控"),
    # cost
    "sizes": ("Sizes", "尺寸"),
    "example": ("example", "示例"),
    "attention weights": ("Attention weights", "注意力权重数"),
    "fixed": ("In every row: {sizes}.", "各行均取 {sizes}。"),
    "counted": (
        "Counted on the running code for one forward pass, and equal to the formulas. Multiply-adds are those"
        " of matrix products and convolutions; pooling, softmax, normalisation and element-wise operations"
        " are not counted. Attention weights are the elements of g(x), what must be stored if it is formed.",
        "数值由运行代码统计一次前向传播得到，并与公式一致。乘加次数只计矩阵乘法和卷积，"
        "不计池化、softmax、归一化和逐元素运算。"
        "注意力权重数即 g(x) 的元素个数，也就是显式构造 g(x) 时需要存储的数量。",
    ),
    "compared": (
        "The sizes lead to the comparison with all mechanisms, where you can set sizes of your own.",
        "点击尺寸，可与全部机制比较，也可换成自己的尺寸。",
    ),
    # proofs
    "statement": ("Statement", "命题"),
    "measured": ("Measured", "实测"),
    "limit": ("Limit", "界限"),
    "proved with": (
        "Measured with torch {torch} on {date}: {tests} tests in {seconds} s. To run just these, in a clone:",
        "以 torch {torch} 于 {date} 实测：{tests} 个测试用时 {seconds} 秒。在克隆中只运行这些测试：",
    ),
    "test file": ("The test file", "测试文件"),
    "how": ("How it is proved", "如何证明"),
    # evidence
    "marks": ("Marks of evidence:", "依据的标记："),
    "meaning": ("What was done", "做了什么"),
    "modules": ("Modules", "模块"),
    "number of": ("{count}: {names}", "{count}：{names}"),
    # onnx
    "onnx": (
        "ONNX (opset {opset}, torch {torch}, ONNX Runtime {onnxruntime}):",
        "ONNX（opset {opset}，torch {torch}，ONNX Runtime {onnxruntime}）：",
    ),
    "onnx passed": ("Goes through", "可导出并运行"),
    "onnx refused": ("Does not", "未通过"),
    "onnx open": (
        " with {sizes} open, within {difference} of torch",
        "：{sizes} 可变，与 torch 相差不超过 {difference}",
    ),
    "onnx fixed": (
        " with all sizes fixed, within {difference} of torch",
        "：尺寸固定，与 torch 相差不超过 {difference}",
    ),
    "onnx failed": (" does not go through: ", "：未通过，"),
    # blocks, start
    "block": ("Block", "模块"),
    "sees layout": ("Sees layout", "看见布局"),
    "one sample": ("One sample", "单个样本"),
    "other sizes": ("Other sizes", "其他尺寸"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "built": (
        "Counted with the defaults of the class; where more is needed, as {codes}.",
        "都按类的默认参数统计；需要更多参数的写作 {codes}。",
    ),
    "zero": ("What is zero", "取零的参数"),
    "factor": ("Factor", "因子"),
    "opened by": ("Biases that open it", "打开它的偏置"),
    "set to": ("{names}, set to {value}", "{names}，设为 {value}"),
    "none": ("none", "无"),
    "moves by": ("Moves by", "变化"),
    "what it does": ("What it does", "做什么"),
    # growth
    "time growth": ("Time · at N = {positions}", "时间 · N = {positions} 时"),
    "memory growth": ("Memory · at N = {positions}", "内存 · N = {positions} 时"),
    "growth measured": (
        "One forward pass, no gradients, B = 1, C = {channels}, float32, torch {torch}, threads: {threads},"
        " on a machine with {cores} cores, {date}. Time is the processor time of the fastest of {rounds}"
        " rounds, memory the most bytes of tensors alive at a time, input included. The exponents belong to"
        " straight lines through the logarithms, from N = {fitted} on. To measure again:",
        "一次不求梯度的前向传播，B = 1，C = {channels}，float32，torch {torch}，线程数 {threads}，"
        "{cores} 核机器，{date}。时间取 {rounds} 轮中最快一轮的处理器时间；"
        "内存取同时存活的张量字节数之和的最大值，含输入。"
        "指数由对数坐标下的直线拟合得到，N 从 {fitted} 起。重新测量：",
    ),
    # opening
    "mechanisms counted": ("{count} mechanisms", "{count} 种机制"),
    "proofs counted": ("{count} proofs", "{count} 项证明"),
    "released": ("as of {date}", "截至 {date}"),
    "licence": ("{name} licence", "{name} 许可证"),
    # matrix
    "none here": ("no mechanism", "无"),
    # comparison
    "filter": ("Filter by name", "按名称筛选"),
    "all": ("all", "全部"),
    "shown": ("{shown} of {all} shown", "显示 {shown} / {all}"),
    "used": ("by model families", "有模型家族使用"),
    "not counted": ("by none counted", "未统计到"),
    "grows": ("grows with each token", "随词元增长"),
    "fixed size": ("of fixed size", "大小固定"),
    "parameter formula": ("Parameter formula", "参数量公式"),
    "at sizes": ("At", "所取尺寸"),
    "choose": ("Choose sizes:", "选择尺寸："),
    "formulas": ("Formulas", "公式"),
    "fields": ("Filter, sizes", "筛选与尺寸"),
    "column": ("Show", "显示"),
    "reset": ("Reset", "重置"),
    "indivisible": ("These sizes do not divide", "这些尺寸不能整除"),
    # models
    "family": ("Family", "家族"),
    "cache": ("Per token", "每词元"),
    "fixed part": ("Constant", "固定部分"),
    "uses": ("Mechanism", "机制"),
    "read on": (
        "{counted} families in {package}, read on {date}.",
        "{package} 中的 {counted} 个家族，读取于 {date}。",
    ),
    "until": ("to {year}", "{year} 及以前"),
    "two": ("Two models beside each other:", "两个模型并排比较："),
    "layers": ("Layers", "层"),
    "only": ("Only {name}", "仅 {name}"),
    "both": ("Both", "两者都有"),
    "keeps full": ("{layers} full", "{layers} 层全注意力"),
    "keeps window": ("{layers} window of {window}", "{layers} 层窗口 {window}"),
    "keeps latent": ("{layers} latent", "{layers} 层潜在向量"),
    "keeps index": ("{layers} index keys", "{layers} 层索引键"),
    "keeps compressed": ("{layers} compressed {every}:1", "{layers} 层压缩 {every}:1"),
    "keeps state": ("{layers} state", "{layers} 层状态"),
    # calculator
    "calculator": ("Cache calculator", "缓存计算器"),
    "keeps": ("Layers that keep something", "有所保留的层"),
    "at tokens": ("At {tokens} tokens", "{tokens} 个词元时"),
    "sum": ("In all", "合计"),
    "calculated": (
        "Caches of {bits} bits, states of 32 bits, one sequence. The last inputs of short convolutions are"
        " not counted.",
        "缓存每数 {bits} 位，状态每数 32 位，单条序列。短卷积保留的最近输入未计入。",
    ),
    "kept full": ("Keys and values of all tokens", "全部词元的键和值"),
    "kept window": ("Keys and values of a window", "窗口内的键和值"),
    "kept latent": ("Latent vectors", "潜在向量"),
    "kept index": ("Index keys", "索引键"),
    "kept compressed": ("Compressed entries", "压缩条目"),
    "kept compressed more": ("Compressed entries of another length", "另一种长度的压缩条目"),
    "kept state": ("States", "状态"),
    "field model": ("Model", "模型"),
    "field bits": ("Bits of a number", "每个数的位数"),
    "field context": ("Tokens", "词元数"),
    "field batch": ("Sequences", "序列数"),
    "field layers": ("Layers", "层数"),
    "field heads": ("KV heads", "KV 头数"),
    "field state heads": ("Heads", "头数"),
    "field key": ("Width of keys", "键宽度"),
    "field value": ("Width of values", "值宽度"),
    "field window": ("Window", "窗口"),
    "field rank": ("Width", "宽度"),
    "field rotated": ("Rotated part", "旋转部分"),
    "field width": ("Width", "宽度"),
    "field every": ("Tokens per entry", "每条目词元数"),
    # plain Markdown
    "cited": ("Papers cited", "引用的论文"),
    # neighbours
    "neighbours": ("Neighbours in the taxonomy", "分类中的相邻机制"),
    "related": ("Related", "相关"),
    "alike": ("Also {axes}", "同属{axes}"),
    "overviews": ("Overviews: ", "总览："),
    # the values of the axes
    "soft": ("soft", "软注意力"),
    "hard": ("hard", "硬注意力"),
    "self": ("self", "自注意力"),
    "sequence": ("sequence", "序列"),
    "channel": ("channel", "通道"),
    "spatial": ("spatial", "空间"),
    "temporal": ("temporal", "时间"),
    "branch": ("branch", "分支"),
    "channel + spatial": ("channel + spatial", "通道 + 空间"),
    "spatial + temporal": ("spatial + temporal", "空间 + 时间"),
    "depth": ("depth", "深度"),
    "set": ("set", "集合"),
    "graph": ("graph", "图"),
    # chapters
    "the formula": ("the formula", "公式与阶段"),
    "masks": ("masks", "掩码"),
    "positions": ("positions", "位置编码"),
    "reading a source": ("reading a source", "读取另一序列"),
    "pooling": ("pooling", "注意力池化"),
    "tokens read each other": ("tokens read each other", "词元互读"),
    "decoders and caches": ("decoders and caches", "解码与缓存"),
    "exact, in pieces": ("exact, in pieces", "分块精确计算"),
    "bounded scores and sinks": ("bounded scores and sinks", "有界打分与汇点"),
    "linear and delta rule": ("linear and delta rule", "线性注意力与增量规则"),
    "sparse selection": ("sparse selection", "稀疏选择"),
    "gates": ("gates", "门控"),
    "every pair": ("every pair", "所有位置对"),
    "fewer comparisons": ("fewer comparisons", "少比一些"),
    "windows and patches": ("windows and patches", "窗口与图块"),
    "no comparison": ("no comparison", "不作比较"),
    "a part only": ("a part only", "只看局部"),
    "frames of a clip": ("frames of a clip", "视频帧"),
    "paths": ("paths", "并行路径"),
    "mixed kernels": ("mixed kernels", "混合卷积核"),
    "earlier layers": ("earlier layers", "更早的层"),
    "sets and latent queries": ("sets and latent queries", "集合与潜在查询"),
    "neighbours in a graph": ("neighbours in a graph", "图中邻居"),
    # what a module was held against
    "evidence paper": ("paper", "论文"),
    "meaning paper": ("The text or the equations of the paper were read.", "读过论文的正文或公式。"),
    "evidence code": ("released code", "发布的代码"),
    "meaning code": (
        "The code that the authors released was read and run beside the module.",
        "读过作者发布的代码，并与模块对照运行过。",
    ),
    "evidence secondary": ("secondary accounts", "二手资料"),
    "meaning secondary": (
        "The paper was not to be had; independent accounts, surveys or other implementations, agree.",
        "未能取得论文；几份独立的二手资料（综述或他人的实现）彼此一致。",
    ),
    "evidence reconstruction": ("reconstruction", "重构"),
    "meaning reconstruction": (
        "What could be read leaves gaps. The module fills them in its own way, and its page says where.",
        "能读到的资料留有空缺，由本模块自行补上，页面上说明了在哪里。",
    ),
    # citations, formulas
    "many authors": ("{first} et al.", "{first} 等"),
    "two authors": ("{first} and {second}", "{first}、{second}"),
    "formula": ("Formula", "公式"),
}
