"""The turns of phrase that give a part of the requirement its role, in English and in Chinese.

Tables of patterns only; roles.py applies them. Groups: `o` outcome, `t` treatment, `c` controls, `z` instrument,
`k` cluster, `a` and `b` two variables of which either may be the outcome. Earlier patterns are surer and win.
"""

import re
from dataclasses import dataclass
from typing import Final

_VERB = (
    r"(?:raise|increase|improve|boost|enhance|promote|reduce|lower|decrease|depress|cut|hurt|harm|affect|influence|"
    r"impact|"
    r"shape|change|alter|drive|cause|determine|predict|explain|shift|encourage|discourage|prevent|deter|lengthen|"
    r"prolong|"
    r"shorten|lead to|translate into|contribute to|matter for|matter to|result in|push up|moderate|save|stimulate|"
    r"crowd out|account for|respond to|foster|hinder|weaken|strengthen|slow|make)(?:e?s|e?d)?"
)
_COMPARED = r"(?:more|less|fewer|higher|lower|better|worse|longer|shorter|larger|smaller|greater|older|younger)"
_ASKS = r"\b(?:does|do|did|is|are|was|were|can|will|would|could|whether|if|how(?: much| strongly)?|has|have|should)\b"
_CONTROL = (
    r"(?:(?:usual )?controls?(?: variables?)?(?: are| is| include)?:?(?: for)?|controlling(?: for)?|controlled for|"
    r"adjust(?:ing|ed)?(?: for)?|holding|hold|keeping|keep|conditional on|conditioning on|net of|allowing for|"
    r"allow for|"
    r"account(?:ing|ed)? for|taking (?:into )?account(?: of)?|includ(?:e|ing)|add(?:ing)?|together with|along with|"
    r"match(?:ing|ed)? on|stratif(?:y|ied|ying) by|with covariates|covariates?(?: are|:)|(?<=, )given|^given)"
)


@dataclass(frozen=True)
class Cues:
    """The patterns of one language; each list in order of trust."""

    sentence_end: re.Pattern[str]
    item_end: re.Pattern[str]
    filler: re.Pattern[str]
    cluster: tuple[re.Pattern[str], ...]
    instrument: tuple[re.Pattern[str], ...]
    control: tuple[re.Pattern[str], ...]
    stated: tuple[re.Pattern[str], ...]
    relation: tuple[re.Pattern[str], ...]


def _patterns(*sources: str) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(source, re.IGNORECASE) for source in sources)


ENGLISH: Final = Cues(
    sentence_end=re.compile(r"[?!;]+|\.(?=\s|$)|\n+"),
    item_end=re.compile(r"[,;()/]|\band\b|\bplus\b|\bas well as\b|\bthen\b", re.IGNORECASE),
    filler=re.compile(
        r"^(?:please|we|i|want to|would like to|know|estimate|analy[sz]e|examine|investigate|find out|whether|the|a|an|"
        r"(?:study|test|see|check)(?= whether| if| how)|any|if|to|is there|are there|does|do|did|and|also|how|"
        r"by how much|\s|,)+\b",
        re.IGNORECASE,
    ),
    cluster=_patterns(
        r"[,;]?\s*\b(?:and |with )?(?:standard errors? )?(?:are )?cluster(?:ed|ing)?(?: the)?(?: standard errors?)?"
        r" (?:by|at|on|within)(?: the)? (?P<k>[\w .]+?)(?: levels?)?(?=[,;]|$)",
    ),
    instrument=_patterns(
        r"\binstrument(?:ing|ed)? (?P<t>.+?) (?:with|by|using) (?P<z>.+?)(?=\band (?:estimate|control)|[,;:]|$)",
        r"\b(?:using|with|use) (?P<z>.+?) as (?:an? |the )?(?:instruments?|iv|instrumental variables?)"
        r"(?: for (?P<t>.+?))?(?=[,;]|$)",
        r",?\s*\b(?:and )?(?:instrument(?:ed|s|al variables?)?)(?: are| is| variables?)?(?: by| with| using)?:? "
        r"(?P<z>.+)$",
        r"(?P<z>[^,;]+?) as (?:an? |the )?(?:instruments?|instrumental variables?)",
    ),
    control=_patterns(
        r",?\s*\b(?:once|after|when) (?P<c>.+?) (?:are|is|have been|has been) "
        r"(?:taken into account|held (?:fixed|constant)|controlled for|accounted for|included|fixed)",
        r",?\s*\bwith (?P<c>[^:]+?) (?:as (?:the )?(?:only )?(?:controls?|covariates?)(?: variables?)?|included|"
        r"held (?:fixed|constant)|as exposure)",
        r",?\s*\b(?:while |after |when |once |and |but |also |please |by |we |you |i |one )*" + _CONTROL + r" "
        r"(?P<c>.+)$",
        r",?\s*\b(?:with |and |the |use |add )*(?:usual|standard|same|basic|following) (?P<c>.+?) (?:controls|"
        r"covariates)\b",
        r", with (?P<c>.+)$",
        r"\b(?:poisson|binomial|logit|probit|ols|tobit|regression|model|glm|effects|specification) with (?P<c>.+)$",
    ),
    stated=_patterns(
        r"\b(?:outcome|dependent|response|explained)(?: variable)?(?: is| are|:| =)+ (?P<o>[^,;]+)",
        r"\b(?P<o>[\w .-]+?) as (?:the )?(?:outcome|dependent variable|response)\b",
        r"\b(?:key|main|focal|core|treatment|explanatory|independent)(?: explanatory| independent)? (?:variables?|"
        r"regressors?)"
        r"(?: is| are|:| =)* (?P<t>.+)$",
        r"\bfocus(?:ing)? on (?P<t>[^,;]+)",
        r"\bvariable of interest(?: is|:)? (?P<t>[^,;]+)",
    ),
    relation=_patterns(
        r"\b(?:what|which factors?) (?:determines?|drives?|affects?|explains?|influences?|predicts?) "
        r"(?:the )?(?:differences? in |variation in )?(?P<o>.+?)(?= across | between | over |$)",
        r"\bregress(?:ion of|ing)? (?P<o>.+?) (?:on|against) (?P<t>.+)",
        r"\b(?:effects?|impacts?|influence|consequences?|role|contribution|importance) of (?P<t>.+?) (?:on|for|in) "
        r"(?P<o>.+)",
        r"\b(?:study|analysis) of (?P<t>.+?) on (?P<o>.+)",
        r"\beffects? on (?P<o>.+?) of (?P<t>.+)",
        r"^(?P<t>.+?)['’]s? (?:effects?|impacts?|influence) on (?P<o>.+)",
        r"\belasticity of (?P<o>.+?) with respect to (?P<t>.+)",
        r"\bwillingness to pay for (?P<t>.+?) in (?P<o>.+)",
        r"\b(?P<t>.+?) (?:capitali[sz]ed|reflected) in(?:to)? (?P<o>.+)",
        r"\b(?:returns?|payoff) (?:to|from) (?P<t>.+?) (?:in terms of|in|on) (?P<o>.+)",
        r"(?P<o>wage|earnings|salary|income|price|pay|rent) (?:penalty|premium|return|discount) (?:for|of|from|to|"
        r"on) (?P<t>.+)",
        r"\b(?:differences?|gaps?|disparit(?:y|ies)|discrimination) in (?P<o>.+?) (?:between|by|across|against|for|"
        r"due to) (?P<t>.+)",
        r"\b(?P<t>[\w-]+) (?P<o>wage|earnings|pay|income|salary|achievement|(?:test )?score|employment|health|"
        r"wealth)s? "
        r"(?:gap|differential|penalty|premium|difference|disparity)",
        r"(?P<o>[\w -]+?) (?:gap|difference|differential|disparity)s? (?:between|by|across|for) (?P<t>.+)",
        r"(?P<t>\w+) (?:discrimination|differences?|gaps?|bias|disparit(?:y|ies)) in (?P<o>.+)",
        r"^(?P<o>.+?) (?:depends?|depended|relies|rely) (?:up)?on (?P<t>.+)",
        r"^(?P<o>.+?) (?:differs?|var(?:y|ies|ied)) (?:with|by|across|between|according to|over) (?P<t>.+)",
        r"^(?P<o>.+?) (?:is|are|was|were|be)?\s*(?:explained|predicted|determined|driven|affected|influenced|shaped|"
        r"caused) by (?P<t>.+)",
        r"\b(?:explain|predict|model(?:ling)?|forecast)\w* (?P<o>.+?) (?:with|by|from|using|as a function of|"
        r"through) (?P<t>.+)",
        r"^(?P<o>.+?) (?:as|is) a function of (?P<t>.+)",
        _ASKS + r" (?P<t>.+?) (?:associated|correlated|linked|relate|relates) (?:with|to) (?P<o>.+)",
        _ASKS + r" (?P<a>.+?) related to (?P<b>.+)",
        r"^(?P<t>.+?) (?:associated|correlated|linked) with (?P<o>.+)",
        r"\b(?:relationship|association|correlation|link|relation|trade-?off) between (?P<a>.+?) and (?P<b>.+)",
        r"^(?P<o>.+?) (?:when|if) (?:they|it|people|firms|he|she|there|you|students|workers)\b (?P<t>.+)",
        r"(?:are|is|were|was|be) (?P<t>.+?) (?:more|less) likely to (?P<o>.+)",
        r"\b(?:is|are|was|were|whether) (?P<o>.+?) " + _COMPARED + r" (?:in|among|for|when|with|at|where|on|if|"
        r"after) (?P<t>.+)",
        _ASKS + r" (?P<t>.+?) (?:significantly |really |also |still |actually |tend to |help to |help |to )*"
        + _VERB + r" (?P<o>.+)",
        _ASKS + r" (?P<t>.+?) (?:matter|make a difference|count|pay off)(?: for| to| in)? (?P<o>.+)",
        _ASKS + r" (?P<t>.+?) (?P<o>(?:earn|get|have|receive|achieve|score|show|face|pay|charge|sell|spend|rated|"
        r"live|use|"
        r"work|save|drink|smoke|give|attend|vote|grow|perform|produce|commit|do)s?\b.*?\b" + _COMPARED + r"\b.*)",
        _ASKS + r" (?P<t>.+?) (?:matter|make a difference|count|pay|pay off)\b",
        r"\bwhich (?P<o>.+?) (?:do|does|did) .+",
        r"^(?:are|is|were|was) (?P<t>.+?) (?P<o>(?:more|less) \w+)\s*$",
        r"\bdeterminants? of (?P<o>.+)",
        r"\b(?:returns?|payoff) (?:to|from) (?P<t>.+)",
        r"^(?P<t>.+?) " + _VERB + r" (?P<o>.+)",
        r"\b(?:explain|predict|model|forecast)\w* (?P<o>.+)",
        r"\b(?:effects?|impacts?|influence) of (?P<t>.+)",
        r"\b(?:did|differences?|diff-in-diff|panel|ols|regression|model|rdd?|event study) (?:on|of|for) (?P<o>.+)",
        r"\bwith (?P<t>.+?) (?:vs\.?|versus|compared (?:to|with)) (?:others|those|the rest)",
        r"^(?P<o>.+?) on (?P<t>.+)",
        r"\b(?:describe|summari[sz]e|distribution of|description of|overview of|tabulate) (?P<o>.+)",
    ),
)  # fmt: skip

_ZH_START = r"(?:^|(?<=[，,：:]))"
"""Where a clause begins: leading groups start only there, so that a long text costs little."""
_ZH_ADVERB = r"(?:显著|明显|有效|真的|进一步|也|都|同样|正向|负向|因此|直接)*"
_ZH_VERB = (
    r"(?:影响|提高|提升|增加|降低|减少|促进|抑制|延长|缩短|改变|改善|导致|带来|推动|决定|预测|解释|拉动|削弱|增强|"
    r"恶化|"
    r"推高|压低|抬高|缓解|刺激|挤出|有助于|有利于|有损于|加剧|扩大|缩小|作用于)"
)
_ZH_TREATMENT = _ZH_START + r"(?P<t>[^，,：:]{1,80}?)"
_ZH_OUTCOME = _ZH_START + r"(?P<o>[^，,：:]{1,80}?)"
_ZH_ASKS = r"(?:是否|能否|会不会|有没有|可否|会|能|可以|将)+"
_ZH_WHAT_KIND = (
    r"(?:的|是否|有|产生|造成|具有)*(?:多大|多少|何种|什么|怎样|怎么|显著|因果|净|平均|边际|"
    r"正向|负向|的|产出|长期|短期|处理)*"
)
_ZH_EFFECT = r"(?:影响|作用|效应|效果|贡献|弹性|因果|冲击|回报|溢价|敏感)"
_ZH_COMPARED = r"(?:更|较|越|有所|比[^，,]+)*(?:高|低|大|小|多|少|长|短|好|差|下降|上升|增加|减少|提高|降低)"
_ZH_LINK = r"(?:有关|关系|相关|关联|联系)"
_ZH_HOW_MUCH = r"(?:会|将|能)?(?:增加|提高|减少|降低|上升|下降|变化)(?:了)?(?:多少|几)"

CHINESE: Final = Cues(
    sentence_end=re.compile(r"[。？！；?!;]+|\n+"),
    item_end=re.compile(r"[,，、;；()（）/]|以及|和|与|及|并且|\band\b"),
    filler=re.compile(
        r"^(?:请|想|我们|我|帮|要|需要|希望|估计|检验|分析|研究|考察|探讨|评估|讨论|了解|知道|一下|看看|验证|考虑|"
        r"利用|使用|采用|"
        r"是否|能否|究竟|到底|：|:|，|,|\s)+"
    ),
    cluster=_patterns(
        r"[，,]?(?:标准误|稳健标准误)?(?:在|按|按照|以|于)(?P<k>[^，。；,;]{1,12}?)(?:层面|水平|一级|级)?(?:上)?"
        r"(?:进行)?聚类(?:标准误|调整)?",
        r"[，,]?(?:标准误)?聚类(?:到|于|在|至)(?P<k>[^，。；,;]{1,12}?)(?:层面|水平|一级|级)?(?=[，。；,;]|$)",
    ),
    instrument=_patterns(
        r"(?:用|以|把|将|使用|采用)(?P<z>[^，。；,;]+?)(?:作为|作|做|为|当作)(?:(?P<t>[^，。；,;]*?)的)?工具变量",
        r"工具变量(?:为|是|用|：|:)(?P<z>[^，。；,;]+)",
    ),
    control=_patterns(
        r"在?(?:同时|并)?(?:控制|考虑|剔除|保持)了?(?P<c>[^。；]+?)(?:的?情况下|的?条件下|的?前提下|之后|以后|不变"
        r"(?:时)?|后(?=[，,]))",
        r"(?:以|把|将)(?P<c>[^。；]+?)(?:作为|为|作|做)控制变量?",
        r"(?:按|按照)(?P<c>[^。；，]+?)(?:分层|匹配)(?:控制)?",
        r"加入(?P<c>[^。；]+?)(?:作为|做|为)控制(?:变量)?",
        r"(?<!不加)控制(?:变量)?(?:了|为|是|包括|有|：|:)*(?P<c>[^。；]+)$",
        r"(?:加入|纳入|包括)(?P<c>[^。；]+)$",
    ),
    stated=_patterns(
        r"(?:以|把|将)(?P<o>[^，。；,;]+?)(?:作为|为|作|做)(?:因变量|被解释变量|结果变量|响应变量)",
        r"(?:因变量|被解释变量|结果变量|结果)(?:为|是|：|:)(?P<o>[^，。；,;]+)",
        r"(?:以|把|将)(?P<t>[^，。；,;]+?)(?:作为|为|作|做)(?:核心|关键|主要)?(?:自变量|解释变量|处理变量|变量)",
        r"(?:核心|关键|主要|重点)(?:解释)?变量(?:为|是|：|:)(?P<t>[^，。；,;]+)",
        r"(?:自变量|解释变量|处理变量)(?:为|是|：|:)(?P<t>[^，。；,;]+)",
    ),
    relation=_patterns(
        _ZH_OUTCOME + r"对(?P<t>[^，,]{1,60}?)的?(?:线性|逻辑|多元|简单)*回归",
        _ZH_OUTCOME + r"对(?P<t>[^，,]{1,60}?)的?(?:交互|交叉)项",
        _ZH_TREATMENT + r"(?:是否|能否|会不会|有没有)对(?P<o>[^，,]{1,60}?)(?:有|产生|造成|具有|带来)",
        _ZH_TREATMENT + r"对于?(?P<o>[^，,]{1,60}?)" + _ZH_WHAT_KIND + _ZH_EFFECT,
        _ZH_TREATMENT + _ZH_ASKS + _ZH_ADVERB + _ZH_VERB + r"了?其?(?P<o>[^，,]+)",
        _ZH_TREATMENT + r"的(?P<o>[^的，,]{1,60}?)(?:是否|会不会)" + _ZH_ADVERB + _ZH_COMPARED,
        r"(?:用|以|利用|根据|通过)(?P<t>[^，,]{1,60}?)(?:来)?(?:预测|解释)(?P<o>[^，,]+)",
        _ZH_OUTCOME + r"(?:如何|怎样|是否)?(?:受|取决于|依赖于|由|随着?)(?P<t>[^，,]{1,60}?)(?:的?影响|决定|而?变化|$)",
        _ZH_TREATMENT + r"(?:之间|间)?的(?P<o>[^的，,]{1,60}?)(?:\([^)]*\))?(?:差距|差异|差别|溢价|惩罚)",
        _ZH_OUTCOME + r"(?:是否)?(?:存在|有)(?P<t>[^，,]{1,60}?)(?:差异|差距|歧视|溢价|差别)",
        _ZH_START + r"(?P<a>[^，,：:]{1,80}?)(?:与|和|同|跟)(?P<b>[^，,]{1,60}?)(?:之间)?的?(?:是否)?" + _ZH_LINK,
        r"(?P<t>(?:每|多|增加|提高)[^，,]{1,60}?)(?:[，,]|(?=平均|其|每))(?P<o>[^，,]{1,60}?)" + _ZH_HOW_MUCH,
        _ZH_TREATMENT + _ZH_ADVERB + _ZH_VERB + r"了?其?(?P<o>[^，,]+)",
        _ZH_TREATMENT + r"的(?:影响|作用|效应|效果|回报)",
        r"(?:描述|汇总|概括|统计)(?P<o>[^，,]{1,60}?)(?:的分布|的情况|$)",
        _ZH_START + r"(?P<o>[^，,：:]{1,80}?)的?(?:分布|描述性统计|决定因素|影响因素)",
    ),
)
